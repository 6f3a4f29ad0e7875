"""CLIP through open_clip: loading, rebuilding, and the frozen features taken from it."""

# B batch, n names, E joint embedding width

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError
from torch import Tensor

from uniemo_ray.data.preprocess import Preprocess, PreprocessName, make_preprocess
from uniemo_ray.foreign_files import no_weights
from uniemo_ray.models.clip_kinds import check_archive, check_kind, describe_unknown
from uniemo_ray.models.clip_weights import check_weights, plain_weights
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.shipped import WEIGHTS

logger = logging.getLogger(__name__)
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
MERGES_FILE = "merges.txt.gz"
TINY_FOLDER = WEIGHTS / "clip"
_NAMES_AT_ONCE = 256
_MISMATCH = re.compile(r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\).*?Size\(\[(.*?)\]\)")
_LOADING_ERRORS = (
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    StopIteration,
    UnpicklingError,
    SafetensorError,
)


class ClipParts(NamedTuple):
    """A frozen CLIP and what is needed to feed, save and rebuild it."""

    model: open_clip.CLIP
    """fp32, eval mode, no parameter requires a gradient."""
    tokenizer: Callable[[list[str]], Tensor]
    """Texts to (n, L) token ids."""
    image_size_px: int
    """Side of the square input."""
    mean: tuple[float, float, float]
    """Input normalisation, per colour channel."""
    std: tuple[float, float, float]
    """Input normalisation, per colour channel."""
    config: dict[str, Any]
    """Content of open_clip_config.json: `model_cfg` and `preprocess_cfg`."""
    merges: Path | None = None
    """BPE merges file, when the vocabulary is not open_clip's own."""

    def preprocess(self, name: PreprocessName = "clip") -> Preprocess:
        """What turns pictures into this tower's input; frozen features are those of `clip`."""
        return make_preprocess(name, size_px=self.image_size_px, mean=self.mean, std=self.std)


def load_clip(name: str, *, pretrained: str | None = None) -> ClipParts:
    """Load CLIP from the package, from a folder, or by open_clip model name.

    Args:
        name: `tiny` (shipped), a folder with open_clip_config.json (here or `s3://`), or an open_clip model
            name.
        pretrained: open_clip tag or weight file; needed for a model name, refused otherwise.

    Raises:
        ValueError: when there is no such model, or no weights for it.
    """
    config, folder = find_clip_config(name, pretrained=pretrained)
    if folder is None:
        return _load_by_name(name, pretrained, config)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise ValueError(
            f"CLIP folder {folder} has no {WEIGHTS_FILE}: expected open_clip's local folder layout"
        )
    model = make_clip(config["model_cfg"])
    with _one_line(name, str(weights)), plain_weights(weights) as plain:
        check_weights(model, plain, config["model_cfg"])
        open_clip.load_checkpoint(model, str(plain))
    merges = folder / MERGES_FILE
    return clip_parts(model, config, merges if merges.is_file() else None)


def find_clip_config(name: str, *, pretrained: str | None = None) -> tuple[dict[str, Any], Path | None]:
    """Architecture and input normalisation of a CLIP, and its folder if it has one; reads no weights.

    Args:
        name: as for `load_clip`.
        pretrained: as for `load_clip`; may be missing when no weights are wanted.

    Raises:
        ValueError: when there is no such model, `check_kind` refuses it, or a folder is given weights from
            elsewhere.
    """
    folder = TINY_FOLDER if name == "tiny" else local_folder(name)
    if name == "tiny" or folder.is_dir():
        if pretrained:
            raise ValueError(
                f"encoder.clip {name!r} brings its own weights: leave encoder.clip_pretrained empty"
            )
        config = read_clip_config(folder)
        _check_kind(name, config["model_cfg"])
        return config, folder
    model_config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if model_config is None:
        raise ValueError(
            f"unknown CLIP {name!r} (encoder.clip){describe_unknown(name)}: expected 'tiny', a folder with "
            f"{CONFIG_FILE} or an open_clip model"
        )
    _check_kind(name, model_config)
    # OpenAI's weights were trained with QuickGELU; open_clip merely warns when the config says otherwise.
    tag = open_clip.get_pretrained_cfg(name, pretrained or "")
    model_config["quick_gelu"] = bool(model_config.get("quick_gelu") or tag.get("quick_gelu"))
    normalisation = {key: list(tag[key]) for key in ("mean", "std") if key in tag}
    return {"model_cfg": model_config, "preprocess_cfg": normalisation}, None


def _check_kind(name: str, config: dict[str, Any]) -> None:
    try:
        check_kind(config)
    except ValueError as error:
        raise ValueError(f"encoder.clip {name!r}: {error}") from None


def read_clip_config(folder: Path) -> dict[str, Any]:
    """Content of a folder's open_clip_config.json.

    Raises:
        ValueError: when the file is missing or lacks `model_cfg`.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        is_other = any((folder / name).is_file() for name in ("config.json", "preprocessor_config.json"))
        form = ", its files are those of transformers" if is_other else ""
        raise ValueError(
            f"CLIP folder {folder} has no {CONFIG_FILE}{form}: expected open_clip's local folder layout, as "
            f"`uniemo fetch` brings it"
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE, MERGES_FILE):
        if found := no_weights(folder / name):
            raise ValueError(f"CLIP folder {folder}: {name} is {found}")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}): copy it again") from None
    if "model_cfg" not in config:
        raise ValueError(f"{path} has no 'model_cfg': expected open_clip's config format")
    return config


def make_clip(config: dict[str, Any]) -> open_clip.CLIP:
    """An untrained CLIP of an open_clip `model_cfg`, frozen and in eval mode.

    Raises:
        ValueError: for an architecture that `check_kind` refuses.
    """
    check_kind(config)
    options = {key: value for key, value in config.items() if key != "custom_text"}
    return open_clip.CLIP(**options).requires_grad_(False).eval()


@torch.no_grad()
def embed_names(clip: ClipParts, names: Sequence[str], *, is_verbatim: bool = False) -> Tensor:
    """L2-normalised text embeddings (n, E) of attribute names, underscores read as spaces unless verbatim."""
    texts = [name if is_verbatim else name.replace("_", " ") for name in names]
    device = next(clip.model.parameters()).device
    parts = [torch.empty(0, clip.model.visual.output_dim, device=device)]
    for i in range(0, len(texts), _NAMES_AT_ONCE):
        ids = clip.tokenizer(texts[i : i + _NAMES_AT_ONCE]).to(device)
        parts.append(clip.model.encode_text(ids, normalize=True))
    return torch.cat(parts)


@torch.no_grad()
def image_features(clip: ClipParts, pixels: Tensor) -> Tensor:
    """Frozen CLIP image feature F (B, E), unnormalised, of normalised pixels (B, 3, H, W)."""
    features: Tensor = clip.model.encode_image(pixels)
    return features


def _load_by_name(name: str, pretrained: str | None, config: dict[str, Any]) -> ClipParts:
    if not pretrained:
        raise ValueError(
            f"CLIP {name!r} needs weights: set encoder.clip_pretrained to an open_clip tag or a file"
        )
    is_tag = bool(open_clip.get_pretrained_cfg(name, pretrained))
    with _one_line(name, pretrained):
        if not is_tag and Path(pretrained).is_file():
            with _checked_file(name, Path(pretrained), config) as plain:
                model = _create(name, str(plain), config)
        else:
            model = _create(name, pretrained, config)
    loaded = config | {"preprocess_cfg": dict(model.visual.preprocess_cfg)}
    return clip_parts(model.requires_grad_(False).eval(), loaded, None)


@contextmanager
def _checked_file(name: str, weights: Path, config: dict[str, Any]) -> Iterator[Path]:
    """A user's file of weights in the form that open_clip loads."""
    if found := no_weights(weights):
        raise ValueError(f"encoder.clip_pretrained {weights} is {found}")
    check_archive(weights)
    _warn_of_activation(name, config["model_cfg"])
    with torch.device("meta"):
        shapes = make_clip(config["model_cfg"])
    with plain_weights(weights) as plain:
        check_weights(shapes, plain, config["model_cfg"])
        yield plain


def _create(name: str, pretrained: str, config: dict[str, Any]) -> open_clip.CLIP:
    is_quick = config["model_cfg"]["quick_gelu"]
    model: open_clip.CLIP = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=is_quick)
    return model


def _warn_of_activation(name: str, config: dict[str, Any]) -> None:
    """A bare file does not say which activation it was trained with, and both give numbers."""
    if not config["quick_gelu"] and f"{name}-quickgelu" in open_clip.list_models():
        logger.warning(
            "weights from a file run with GELU, as %s says; those of OpenAI, MetaCLIP, DFN need %s-quickgelu",
            name,
            name,
        )


@contextmanager
def _one_line(name: str, weights: str) -> Iterator[None]:
    """Say in one line what weight files make the libraries say in many ways."""
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if found := _MISMATCH.search(reason):
            reason = "{} has shape [{}], expected [{}]".format(*found.groups())
        raise ValueError(
            f"CLIP {name!r} with weights {weights!r} cannot be loaded ({reason[:400]}): expected a whole "
            f"weight file of this architecture, or a tag that this machine can reach"
        ) from None


def clip_parts(model: open_clip.CLIP, config: dict[str, Any], merges: Path | None) -> ClipParts:
    """A frozen model with the tokenizer and the input normalisation of its config (open_clip_config.json)."""
    length = config["model_cfg"]["text_cfg"].get("context_length", 77)
    vocabulary = {"bpe_path": str(merges)} if merges else {}
    mean, std = normalisation(config)
    return ClipParts(
        model=model,
        tokenizer=SimpleTokenizer(context_length=length, **vocabulary),
        image_size_px=int(model.visual.image_size[0]),
        mean=mean,
        std=std,
        config=config,
        merges=merges,
    )


def normalisation(config: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """CLIP's own mean and deviation per colour channel, of its open_clip_config.json; by default OpenAI's."""
    preprocess = config.get("preprocess_cfg", {})
    mean: tuple[float, float, float] = tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN))
    std: tuple[float, float, float] = tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD))
    return mean, std
