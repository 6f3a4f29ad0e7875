"""Saves and loads what an engine trains, piece by piece, for any number of ranks and any ZeRO stage."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from uniemo_ray.training.checkpoint import (
    MOMENTS,
    CheckpointReader,
    Index,
    ParameterRecord,
    Piece,
    write_index,
    write_pieces,
)
from uniemo_ray.training.held_state import HeldState, own_share
from uniemo_ray.training.weight_average import WeightAverage


def save_engine_state(
    folder: Path,
    objective: nn.Module,
    held: HeldState,
    *,
    rank: int,
    world_size: int,
    steps: int,
    loss_scale: Mapping[str, float],
    average: WeightAverage | None,
) -> None:
    """Write this rank's pieces, and on rank 0 the buffers and the index.

    Frozen parameters are not in it: they come out the same when the stage is built again.
    """
    trained = trained_parameters(objective)
    if held.is_replicated:
        share = own_share(trained, rank=rank, world_size=world_size)
        pieces = chain.from_iterable(
            _pieces(name, trained[name], held, average, start, stop) for name, start, stop in share
        )
    else:
        pieces = chain.from_iterable(_pieces(name, trained[name], held, average) for name in trained)
    buffers = _buffers(objective) if rank == 0 else {}
    constant = (Piece("buffer", name, 0, values.reshape(-1)) for name, values in buffers.items())
    write_pieces(folder, chain(constant, pieces), rank=rank, world_size=world_size)
    if rank == 0:
        records = {name: ParameterRecord(_shape(p), held.updates(p)) for name, p in trained.items()}
        write_index(folder, Index(world_size, steps, records, loss_scale))


def load_engine_state(
    reader: CheckpointReader, objective: nn.Module, held: HeldState, average: WeightAverage | None
) -> None:
    """Put what a checkpoint holds in its places; each rank reads what it needs.

    Raises:
        ValueError: the checkpoint is of another model, or incomplete.
    """
    trained = trained_parameters(objective)
    _check_fits(reader, trained)
    with torch.no_grad():
        held.begin_load()
        for name, parameter in trained.items():
            _load(reader, name, parameter, held)
        held.end_load()
        if average is not None:
            average.load(reader)
        buffers = _buffers(objective)
        for name in reader.names("buffer") & buffers.keys():
            values = reader.read("buffer", name, 0, buffers[name].numel())
            buffers[name].copy_(values.view(buffers[name].shape))


def _load(reader: CheckpointReader, name: str, parameter: nn.Parameter, held: HeldState) -> None:
    updates = reader.index.parameters[name].updates
    if updates:
        held.start_moments(parameter, updates)
    whole = held.whole_weight(parameter)
    if whole is not None:
        whole.copy_(reader.read("weight", name, 0, whole.numel()))
    part = held.held(parameter)
    if part is None:
        return
    stop = part.start + part.weight.numel()
    if whole is None:
        part.weight.copy_(reader.read("weight", name, part.start, stop))
    else:
        part.weight.copy_(whole[part.start : stop])
    for kind in MOMENTS if updates else ():
        if name in reader.names(kind):  # SGD has only the first
            part.moments[kind].copy_(reader.read(kind, name, part.start, stop))


def _pieces(
    name: str,
    parameter: nn.Parameter,
    held: HeldState,
    average: WeightAverage | None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Piece]:
    """What this rank holds of a parameter, or its elements from `start` to `stop` of that."""
    part = held.held(parameter)
    if part is None:
        return
    yield Piece("weight", name, part.start + start, part.weight[start:stop])
    for kind in MOMENTS:
        if kind in part.moments:
            yield Piece(kind, name, part.start + start, part.moments[kind][start:stop])
    averaged = average.part(name) if average is not None else None
    if averaged is not None:
        yield Piece("average", name, part.start + start, averaged[start:stop])


def trained_parameters(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Those that are trained and saved, by name."""
    return {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}


def _buffers(objective: nn.Module) -> dict[str, Tensor]:
    kept = objective.state_dict(keep_vars=True)
    return {name: value for name, value in kept.items() if not isinstance(value, nn.Parameter)}


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO 3 the parameter is empty


def _check_fits(reader: CheckpointReader, trained: Mapping[str, nn.Parameter]) -> None:
    stored = reader.index.parameters
    for name in sorted(stored.keys() | trained.keys()):
        if name not in trained:
            fault = f"the model has no {name} that trains"
        elif name not in stored:
            fault = f"the checkpoint lacks {name}"
        elif stored[name].shape != _shape(trained[name]):
            fault = f"{name} is {stored[name].shape} in it and {_shape(trained[name])} in the model"
        else:
            continue
        raise ValueError(
            f"the checkpoint does not belong to these settings: {fault}; take the settings that it was "
            f"written with, or remove the stage's folder to train it anew"
        )
