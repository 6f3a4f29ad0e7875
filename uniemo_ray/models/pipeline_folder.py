"""A diffusers pipeline on disk: where it is, and whether it holds every part that is needed."""

# T text width of an encoder

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from uniemo_ray.config import DiffusionConfig
from uniemo_ray.foreign_files import no_weights
from uniemo_ray.models.pipeline_kinds import check_kinds, known_index
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.shipped import WEIGHTS
from uniemo_ray.text import one_line

TINY_FOLDER = WEIGHTS / "diffusion"
INDEX_FILE = "model_index.json"
_STEMS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Parts with weights, and the name of their weight file."""
_OTHERS = {
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""Parts without weights, and the file that each must have."""
_WHOLE_VOCABULARY, _VOCABULARY = "tokenizer.json", ("vocab.json", "merges.txt")
"""Either form is a tokenizer's; without any, transformers makes up a vocabulary of two words."""
_VARIANTS = (None, "fp16", "bf16")
"""As `diffusion.variant` takes them."""
_XL_ONLY = ("text_encoder_2", "tokenizer_2")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class PipelineFolder(NamedTuple):
    """A complete Stable Diffusion (XL) pipeline folder."""

    path: Path
    is_xl: bool
    """Stable Diffusion XL: two text encoders, a pooled output, size conditions."""
    is_empty_zero: bool
    """Whether the empty prompt is conditioned on zeros (an SDXL setting)."""
    variant: str | None
    """`fp16` or `bf16`: which weight files are read."""

    @property
    def text_widths(self) -> tuple[int, ...]:
        """T of each text encoder."""
        return tuple(
            int(_read_json(self.path / part / "config.json")["hidden_size"])
            for part in ("text_encoder", "text_encoder_2")[: 1 + self.is_xl]
        )

    @property
    def parts(self) -> list[str]:
        """Names of the folders that belong to it."""
        return _parts(is_xl=self.is_xl)

    def copy_to(self, target: Path) -> None:
        """Copy the files that belong to it; the copy's index names no others, so diffusers opens it."""
        for name in self.files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / name, target / name)
        index = _read_json(self.path / INDEX_FILE)
        if (kept := known_index(index, self.parts)) != index:
            (target / INDEX_FILE).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    @property
    def files(self) -> tuple[str, ...]:
        """Relative names of the files that belong to it: configs, vocabularies, weights of the variant."""
        names = [INDEX_FILE]
        for part in self.parts:
            folder = self.path / part
            plain = [path.name for path in folder.iterdir() if path.suffix in (".json", ".txt")]
            plain = [name for name in plain if ".safetensors.index." not in name]
            weights = _weight_files(folder, _STEMS[part], self.variant) if part in _STEMS else []
            names += [f"{part}/{name}" for name in sorted({*plain, *weights})]
        return tuple(names)


def find_pipeline(name: str, *, revision: str | None = None, variant: str | None = None) -> PipelineFolder:
    """Find a pipeline and check that nothing of it is missing; no weight is read.

    Args:
        name: `tiny` (shipped), a folder (here or `s3://`), or a hub id such as
            `stabilityai/stable-diffusion-xl-base-1.0`, which is taken from the local cache or downloaded.
        revision: of a hub id; a folder is what it is.
        variant: `fp16` or `bf16` for weight files of that name.

    Raises:
        ValueError: one line that names the missing folder, part or file.
    """
    path = TINY_FOLDER if name == "tiny" else local_folder(name)
    if name != "tiny" and not path.is_dir() and _HUB_ID.fullmatch(name):
        path = _from_hub(name, revision, variant)
    if path.is_file():
        raise ValueError(
            f"diffusion.model {name!r} is a single file: expected a pipeline folder, as diffusers makes it "
            f"(StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER))"
        )
    if not (path / INDEX_FILE).is_file():
        raise ValueError(
            f"diffusion.model {name!r}: {path / INDEX_FILE} is missing, expected a diffusers pipeline folder"
        )
    _check_content(path, INDEX_FILE)
    index = _read_json(path / INDEX_FILE)
    is_xl = _is_present(index, "text_encoder_2")
    for part in _parts(is_xl=is_xl):
        _check_part(path, part, index, variant)
    check_kinds(path, index)
    is_empty_zero = is_xl and bool(index.get("force_zeros_for_empty_prompt", True))
    return PipelineFolder(path, is_xl, is_empty_zero, variant)


def configured_pipeline(diffusion: DiffusionConfig) -> PipelineFolder:
    """`find_pipeline` of the settings."""
    return find_pipeline(diffusion.model, revision=diffusion.revision, variant=diffusion.variant)


def text_widths(diffusion: DiffusionConfig) -> tuple[int, ...]:
    """T of each text encoder: stage 1 neither loads nor imports a diffusion model.

    Raises:
        ValueError: when neither the setting nor the model's folder says it.
    """
    if diffusion.text_widths is not None:
        return diffusion.text_widths
    return configured_pipeline(diffusion).text_widths


def check_text_widths(diffusion: DiffusionConfig) -> None:
    """Compare the setting, which stage 1 goes by, with the model that stage 2 will load.

    Raises:
        ValueError: one line with both widths, or what `find_pipeline` says of the folder.
    """
    found = configured_pipeline(diffusion).text_widths
    if diffusion.text_widths not in (None, found):
        raise ValueError(
            f"diffusion.text_widths is {diffusion.text_widths}, but diffusion.model {diffusion.model!r} has "
            f"text encoders of {found}: set it to these, or choose the preset of this model"
        )


def load_part(folder: PipelineFolder, part: str, kind: Any, **options: Any) -> Any:
    """A model of the folder, with every tensor from its file: libraries fill gaps with random numbers.

    Args:
        folder: complete.
        part: name of a part with weights.
        kind: its class.
        options: for the class's own `from_pretrained`.

    Raises:
        ValueError: one line, when the weights are damaged, lack a tensor or have another shape.
    """
    try:
        model, report = kind.from_pretrained(
            folder.path,
            subfolder=part,
            variant=folder.variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = one_line(error)
        raise ValueError(
            f"diffusion.model {folder.path}: {part} cannot be loaded ({reason}): copy the folder again"
        ) from None
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise ValueError(
            f"diffusion.model {folder.path}: {part} cannot be loaded ({name} has shape {tuple(found)}, its "
            f"config says {tuple(expected)}): copy the folder again"
        )
    if report["missing_keys"]:
        first = min(str(key) for key in report["missing_keys"])
        raise ValueError(
            f"diffusion.model {folder.path}: the weights of {part} lack {first}: copy the folder again"
        )
    return model


def _parts(*, is_xl: bool) -> list[str]:
    return [part for part in (*_STEMS, *_OTHERS) if is_xl or part not in _XL_ONLY]


def _check_part(path: Path, part: str, index: dict[str, Any], variant: str | None) -> None:
    if not _is_present(index, part):
        found = ", ".join(key for key in sorted(index) if _is_present(index, key))
        raise ValueError(f"diffusion.model {path} has no {part}: {INDEX_FILE} lists {found}")
    for name in _needed_files(path / part, part, variant):
        if not (path / part / name).is_file():
            advice = (
                _advice(path, index, variant) if name.endswith(".safetensors") else "copy the whole folder"
            )
            raise ValueError(f"diffusion.model {path} lacks {part}/{name}: {advice}")
        _check_content(path, f"{part}/{name}")


def _check_content(path: Path, name: str) -> None:
    """Refuse what lies under the name of a file and is none; what the libraries say of it misleads."""
    if found := no_weights(path / name):
        raise ValueError(f"diffusion.model {path}: {name} is {found}")


def _advice(path: Path, index: dict[str, Any], variant: str | None) -> str:
    """What to do about missing weights: ask for the variant that is whole, or get the files."""
    stems = [(path / part, stem) for part, stem in _STEMS.items() if _is_present(index, part)]
    for other in _VARIANTS:
        needed = [folder / name for folder, stem in stems for name in _weight_files(folder, stem, other)]
        if other != variant and all(file.is_file() for file in needed):
            return f"set diffusion.variant={other or 'null'}, which the folder holds whole"
    if any(path.glob("*/*.bin")):
        return (
            "copy the whole folder, with safetensors: .bin files are not read, `uniemo fetch` converts them"
        )
    kind = f"the {variant} variant's safetensors" if variant else "safetensors"
    return f"copy the whole folder, with {kind}"


def _needed_files(folder: Path, part: str, variant: str | None) -> list[str]:
    """Names of the files that a part must have."""
    if part in _STEMS:
        return ["config.json", *_weight_files(folder, _STEMS[part], variant)]
    if part == "scheduler":
        return [_OTHERS[part]]
    if (folder / _WHOLE_VOCABULARY).is_file():
        return [_OTHERS[part], _WHOLE_VOCABULARY]
    return [_OTHERS[part], *_VOCABULARY]


def _weight_files(folder: Path, stem: str, variant: str | None) -> list[str]:
    """The weight file of a part, or its index and shards."""
    dotted = f".{variant}" if variant else ""
    index = folder / f"{stem}.safetensors.index{dotted}.json"
    if not index.is_file():
        return [f"{stem}{dotted}.safetensors"]
    return [index.name, *sorted(set(_read_json(index)["weight_map"].values()))]


def _is_present(index: dict[str, Any], part: str) -> bool:
    """Whether model_index.json gives a part a class: `[null, null]` says that there is none."""
    entry = index.get(part)
    return isinstance(entry, list) and all(entry)


def _from_hub(name: str, revision: str | None, variant: str | None) -> Path:
    """Snapshot folder of a hub id, with no more than the files that are read."""
    from huggingface_hub import snapshot_download

    dotted = f".{variant}" if variant else ""
    wanted = [INDEX_FILE]
    for part in (*_STEMS, *_OTHERS):
        wanted += [f"{part}/*.json", f"{part}/*.txt"]
    for part, stem in _STEMS.items():
        # shards of a variant are named in two ways, by the release that saved them
        shards = f"{stem}{dotted}-?????-of-?????", f"{stem}-?????-of-?????{dotted}"
        wanted += [f"{part}/{name}.safetensors" for name in (f"{stem}{dotted}", *shards)]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        at = f" at revision {revision}" if revision else ""
        raise ValueError(
            f"diffusion.model {name!r} is no folder, and from the hub it cannot be had{at}: download it on a "
            f"machine with a network and set diffusion.model to its folder ({type(error).__name__}: {reason})"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}): copy it again") from None
    return content
