"""Architectures of diffusion models as plain settings: known ones from here, a folder's from its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uniemo_ray.models.pipeline_folder import TINY_FOLDER
from uniemo_ray.store.filesystem import Store, open_store

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What diffusers and transformers need to build an untrained model."""

    name: str
    denoiser: Values
    """Settings of `UNet2DConditionModel`."""
    vae: Values
    """Settings of `AutoencoderKL`."""
    text_encoders: tuple[Values, ...]
    """Settings of each `CLIPTextConfig`. All encoders but the first also have a projection."""

    @property
    def text_widths(self) -> tuple[int, ...]:
        """T of each text encoder."""
        return tuple(int(values["hidden_size"]) for values in self.text_encoders)

    @property
    def pixels_per_latent(self) -> int:
        """Side of the image over that of its latent."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))


_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
SD15 = Architecture(
    name="Stable Diffusion 1.5",
    denoiser={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae=_VAE | {"sample_size": 512, "scaling_factor": 0.18215},
    text_encoders=(_CLIP_L,),
)
SDXL = Architecture(
    name="Stable Diffusion XL",
    denoiser={
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=_VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    text_encoders=(
        _CLIP_L,
        {
            "vocab_size": 49408,
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "max_position_embeddings": 77,
            "projection_dim": 1280,
            "hidden_act": "gelu",
        },
    ),
)
KNOWN = {"sd15": SD15, "sdxl": SDXL}
_HUB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "runwayml/stable-diffusion-v1-5": "sd15",
    "CompVis/stable-diffusion-v1-4": "sd15",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}


def find_architecture(model: str) -> Architecture:
    """The architecture of `diffusion.model`: `tiny`, a diffusers folder, `sd15`, `sdxl` or a known hub id.

    Of a folder, here or `s3://`, its small config files alone are read.

    Raises:
        ValueError: when it is none of these, saying what to give instead.
    """
    key = _HUB.get(model, model)
    if key in KNOWN:
        return KNOWN[key]
    store = open_store(str(TINY_FOLDER) if model == "tiny" else model)
    if store.exists("unet/config.json"):
        return _read(store, name=model.rstrip("/").rpartition("/")[2])
    raise ValueError(
        f"diffusion.model {model!r} is neither a diffusers folder (here or s3://) nor a known model: "
        f"name its architecture with --diffusion, one of {', '.join(KNOWN)}"
    )


def _read(store: Store, *, name: str) -> Architecture:
    def values(part: str) -> dict[str, Any]:
        found: dict[str, Any] = store.read_json(f"{part}/config.json")
        return {key: value for key, value in found.items() if not key.startswith("_")}

    encoders = [p for p in ("text_encoder", "text_encoder_2") if store.exists(f"{p}/config.json")]
    return Architecture(
        name=name,
        denoiser=values("unet"),
        vae=values("vae"),
        text_encoders=tuple(values(part) for part in encoders),
    )
