"""Pickled weights to safetensors; nothing in a pickle is executed."""

import pickle
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from uniemo_ray.models.pickled import read_pickled
from uniemo_ray.text import one_line


def convert_to_safetensors(source: Path, target: Path) -> Path:
    """Write the tensors of a .bin file as safetensors, under the same names.

    Raises:
        ValueError: for a file that holds anything but tensors by name.
    """
    try:
        values = read_pickled(source)
    except (pickle.UnpicklingError, RuntimeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise ValueError(f"{source.name} holds more than plain tensors and is not read: {reason}") from None
    values = values.get("state_dict", values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise ValueError(f"{source.name} is no table of tensors by name: fetch another revision")
    # Tensors that share memory would be refused: each gets its own.
    tensors = {str(name): value.detach().contiguous().clone() for name, value in values.items()}
    save_file(tensors, target, metadata={"format": "pt"})
    return target
