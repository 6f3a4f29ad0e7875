"""Where the weights of each preset lie: repository, pinned revision, files. Data, no code."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Source:
    """One repository and what is taken from it."""

    folder: str
    """Folder in the layout: `clip` or `diffusion`."""
    repository: str
    revision: str
    """A commit."""
    files: tuple[str, ...]
    """Small files that must be there."""
    one_of: tuple[tuple[tuple[str, ...], ...], ...] = ()
    """Groups of sets of files. Every complete set of a group is fetched; each group needs at least one."""
    optional: tuple[str, ...] = ()
    """Small files that are taken where they are there."""
    weights: tuple[str, ...]
    """Weight files without ending: safetensors are preferred, .bin is converted."""
    sha256: tuple[tuple[str, str], ...] = ()
    """Hashes known beforehand, by file; all others are those that the hub states."""


_VOCABULARIES = (("vocab.json", "merges.txt"), ("tokenizer.json",))
"""Either form is a tokenizer's."""


def _diffusion(repository: str, revision: str, *, encoders: int) -> Source:
    numbers = ("", "_2")[:encoders]
    return Source(
        folder="diffusion",
        repository=repository,
        revision=revision,
        files=(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "vae/config.json",
            *(f"text_encoder{n}/config.json" for n in numbers),
            *(f"tokenizer{n}/tokenizer_config.json" for n in numbers),
        ),
        one_of=tuple(
            tuple(tuple(f"tokenizer{n}/{name}" for name in names) for names in _VOCABULARIES) for n in numbers
        ),
        optional=tuple(f"tokenizer{n}/special_tokens_map.json" for n in numbers),
        weights=(
            "unet/diffusion_pytorch_model",
            "vae/diffusion_pytorch_model",
            *(f"text_encoder{n}/model" for n in numbers),
        ),
    )


def _clip(repository: str, revision: str, *, sha256: str) -> Source:
    weights = "open_clip_model"
    return Source(
        folder="clip",
        repository=repository,
        revision=revision,
        files=("open_clip_config.json",),
        weights=(weights,),
        sha256=((f"{weights}.safetensors", sha256),),
    )


SD15 = _diffusion(
    "stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", encoders=1
)
SDXL = _diffusion(
    "stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b", encoders=2
)
# open_clip's own copies of OpenAI's weights.
B32 = _clip(
    "timm/vit_base_patch32_clip_224.openai",
    "a6f597a30f7b82c51704746581f9a4e41421e878",
    sha256="e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
)
B16 = _clip(
    "timm/vit_base_patch16_clip_224.openai",
    "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
    sha256="4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
)
L14 = _clip(
    "timm/vit_large_patch14_clip_224.openai",
    "18d0535469bb561bf468d76c1d73aa35156c922b",
    sha256="9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
)

PRESETS: dict[str, tuple[Source, ...]] = {
    "vit_b32_sd15": (B32, SD15),
    "vit_b16_sd15": (B16, SD15),
    "vit_l14_sd15": (L14, SD15),
    "vit_l14_sdxl": (L14, SDXL),
}


def sources_of(preset: str) -> tuple[Source, ...]:
    """The repositories of a preset; its `_released` variant has the same ones.

    Raises:
        ValueError: for a preset without weights to fetch.
    """
    found = PRESETS.get(preset.removesuffix("_released"))
    if found is None:
        hint = "; the tiny models are part of the package" if preset == "tiny" else ""
        raise ValueError(
            f"no weights to fetch for preset {preset!r}: expected one of {', '.join(PRESETS)}{hint}"
        )
    return found
