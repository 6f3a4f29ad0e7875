"""The files of a checkpoint: trained weights and AdamW's moments by parameter name, whoever wrote them.

Each rank writes the pieces of parameters that it holds, and any number of ranks reads them again: nothing in
the files depends on the number of ranks but who wrote what.

Layout of a folder:

* `engine.json`, by rank 0: the format's version, the number of ranks that wrote, steps, and of each
  parameter its shape and the updates that its moments have seen;
* `engine-<rank>-of-<ranks>-<part>.safetensors`: pieces as 1-D tensors with keys `<kind>/<start>/<name>`: the
  elements of the flattened parameter from `start` on. `kind` is `weight`, `exp_avg`, `exp_avg_sq`, with
  `ema_decay` also `average` (all fp32), or `buffer`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 1
INDEX = "engine.json"
OLD_FOLDER = "engine"
"""Where DeepSpeed's own checkpoints lay, which no other number of workers could read."""
FILE_BYTES = 256 * 2**20
"""Largest size of a file, unless one piece is larger: so much is copied to the CPU at a time."""

Kind = Literal["weight", "exp_avg", "exp_avg_sq", "average", "buffer"]
MOMENTS: tuple[Kind, Kind] = ("exp_avg", "exp_avg_sq")


class Piece(NamedTuple):
    """Some elements of a flattened parameter.

    Attributes:
        kind: What they are.
        name: Of the parameter.
        start: Position of the first one.
        values: (n,).
    """

    kind: Kind
    name: str
    start: int
    values: Tensor


@dataclass(frozen=True)
class ParameterRecord:
    """What the index says of a parameter.

    Attributes:
        shape: Of the whole of it.
        updates: Steps that its moments have seen; without any there are none in the files.
    """

    shape: tuple[int, ...]
    updates: int


@dataclass(frozen=True)
class Index:
    """What rank 0 writes beside the pieces.

    Attributes:
        world_size: Number of ranks that wrote.
        steps: Optimizer steps done.
        parameters: By name.
        loss_scale: State of fp16's loss scale; empty in other precisions.
    """

    world_size: int
    steps: int
    parameters: Mapping[str, ParameterRecord]
    loss_scale: Mapping[str, float]


def write_index(folder: Path, index: Index) -> None:
    """Write `engine.json`."""
    (folder / INDEX).write_text(json.dumps({"format": FORMAT, **asdict(index)}), encoding="utf-8")


def write_pieces(folder: Path, pieces: Iterable[Piece], *, rank: int, world_size: int) -> None:
    """Write one rank's pieces, at most `FILE_BYTES` of them on the CPU at a time."""
    waiting: dict[str, Tensor] = {}
    size = part = 0
    for piece in pieces:
        added = piece.values.numel() * piece.values.element_size()
        if waiting and size + added > FILE_BYTES:
            save_file(waiting, folder / _file(rank, world_size, part))
            waiting, size, part = {}, 0, part + 1
        waiting[f"{piece.kind}/{piece.start}/{piece.name}"] = piece.values.detach().cpu().contiguous()
        size += added
    if waiting:
        save_file(waiting, folder / _file(rank, world_size, part))


def _file(rank: int, world_size: int, part: int) -> str:
    return f"engine-{rank:05d}-of-{world_size:05d}-{part:05d}.safetensors"


class CheckpointReader:
    """Reads a checkpoint's folder, which holds the pieces of all ranks that wrote.

    Args:
        folder: The folder.

    Raises:
        ValueError: it holds no checkpoint, or one of another version, saying what to do.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.index = _read_index(folder)
        self._files: dict[Path, Any] = {}  # safetensors declares no types for what a file can do
        self._pieces: dict[tuple[str, str], list[tuple[int, int, Path, str]]] = {}
        for path in sorted(folder.glob(f"engine-*-of-{self.index.world_size:05d}-*.safetensors")):
            file: Any = safe_open(path, framework="pt")
            self._files[path] = file
            for key in file.keys():  # noqa: SIM118  # not a dict
                kind, start, name = key.split("/", 2)
                (length,) = file.get_slice(key).get_shape()
                self._pieces.setdefault((kind, name), []).append((int(start), length, path, key))

    def names(self, kind: Kind) -> set[str]:
        """Parameters or buffers of which there are pieces of this kind."""
        return {name for found, name in self._pieces if found == kind}

    def read(self, kind: Kind, name: str, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of a flattened parameter, (stop - start,), on the CPU.

        Raises:
            ValueError: some of them are in no file.
        """
        parts, at = [], start
        for first, length, path, key in sorted(self._pieces.get((kind, name), [])):
            if at < stop and first <= at < first + length:
                parts.append(self._files[path].get_slice(key)[at - first : min(stop, first + length) - first])
                at = min(stop, first + length)
        if at < stop:
            raise ValueError(
                f"the checkpoint {self._folder} lacks a part of {kind} of {name}: the file of a worker is "
                f"missing; remove this checkpoint to go on from the one before"
            )
        return torch.cat(parts) if len(parts) != 1 else parts[0]


def _read_index(folder: Path) -> Index:
    path = folder / INDEX
    if not path.is_file():
        if (folder / OLD_FOLDER).is_dir():
            raise ValueError(
                f"the checkpoint {folder} was written by an older version of uniemo_ray, which this one "
                f"cannot read: finish the stage with that version, or remove the stage's folder to train "
                f"it anew"
            )
        raise ValueError(f"{folder} holds no checkpoint: expected a file {INDEX} in it")
    values = json.loads(path.read_text(encoding="utf-8"))
    if values.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint {folder} has format {values.get('format')} and this version of uniemo_ray reads "
            f"format {FORMAT}: use the version that wrote it, or remove the stage's folder to train it anew"
        )
    parameters = {
        name: ParameterRecord(tuple(record["shape"]), record["updates"])
        for name, record in values["parameters"].items()
    }
    return Index(values["world_size"], values["steps"], parameters, values["loss_scale"])
