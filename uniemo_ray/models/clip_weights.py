"""Weight files of a CLIP before open_clip loads them: names, shapes and activation."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import load_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from uniemo_ray.models.clip_kinds import check_activation
from uniemo_ray.models.pickled import COMPILED

_POSITIONS = ("visual.positional_embedding", "positional_embedding")
"""What open_clip interpolates, without an error, when it comes from another resolution or text length."""


@contextmanager
def plain_weights(weights: Path) -> Iterator[Path]:
    """The file, or a copy of it without what torch.compile puts into names, which open_clip leaves there."""
    if not any(COMPILED in name for name in _shapes(weights)):
        yield weights
        return
    state = load_state_dict(str(weights))
    with tempfile.TemporaryDirectory(prefix="uniemo-clip-") as scratch:
        copy = Path(scratch) / "open_clip_model.safetensors"
        tensors = {name.replace(COMPILED, ""): value.contiguous().clone() for name, value in state.items()}
        save_file(tensors, copy, metadata={"format": "pt"})
        yield copy


def check_weights(model: open_clip.CLIP, weights: Path, config: Mapping[str, Any]) -> None:
    """Refuse weights that open_clip would adapt to the model, or run with another activation.

    Raises:
        RuntimeError: with both shapes, for weights of another resolution or text length.
        ValueError: weights of another activation than the config's.
    """
    expected, found = model.state_dict(), _shapes(weights)
    check_activation(config, found, weights)
    for key in _POSITIONS:
        if key in found and found[key] != list(expected[key].shape):
            raise RuntimeError(f"{key} has shape {found[key]}, expected {list(expected[key].shape)}")


def _shapes(weights: Path) -> dict[str, list[int]]:
    """Names and shapes of a file's tensors."""
    if weights.suffix == ".safetensors":
        with safe_open(weights, "pt", device="cpu") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    return {key: list(value.shape) for key, value in load_state_dict(str(weights)).items()}
