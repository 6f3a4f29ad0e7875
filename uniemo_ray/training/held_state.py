"""Where DeepSpeed keeps a rank's part of the trained weights and of AdamW's moments, for every ZeRO stage.

DeepSpeed has functions for this as well, `deepspeed.utils.safe_get_full_fp32_param` and its siblings. They
gather each parameter on every rank, know nothing of ZeRO 0, and under ZeRO 3 they cannot set a parameter
whose size is no multiple of the number of ranks (0.19.8). Here each rank looks at its own part alone.
"""

# n elements of one parameter that this rank holds

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from uniemo_ray.training.checkpoint import MOMENTS, Kind


class Held(NamedTuple):
    """The part of one parameter that this rank updates.

    Attributes:
        start: Position of its first element in the flattened parameter.
        weight: (n,) fp32, a view of what the optimizer updates.
        moments: `exp_avg` and `exp_avg_sq` (n,), views; empty before the first step.
    """

    start: int
    weight: Tensor
    moments: Mapping[Kind, Tensor]


class HeldState(ABC):
    """This rank's part of weights and moments.

    Args:
        optimizer: DeepSpeed's, or AdamW itself under ZeRO 0.
    """

    is_replicated = False
    """Whether all ranks have the same."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @abstractmethod
    def held(self, parameter: nn.Parameter) -> Held | None:
        """What this rank has of a parameter, or None."""

    @abstractmethod
    def updates(self, parameter: nn.Parameter) -> int:
        """Steps that the moments of a parameter have seen, as far as this rank knows."""

    @abstractmethod
    def start_moments(self, parameter: nn.Parameter, updates: int) -> None:
        """Make place for moments that have seen so many steps."""

    @abstractmethod
    def whole_weight(self, parameter: nn.Parameter) -> Tensor | None:
        """The whole parameter as the forward pass reads it, flat, if this rank has it."""

    @abstractmethod
    def begin_load(self) -> None:
        """Forget the moments, before anything is written; collective."""

    @abstractmethod
    def end_load(self) -> None:
        """After the last weight is written; collective."""

    @abstractmethod
    def publish(self) -> None:
        """Let the forward pass read the held weights as they are now; collective."""


class _Replicated(HeldState):
    """ZeRO 0: every rank has everything."""

    is_replicated = True

    def held(self, parameter: nn.Parameter) -> Held:
        state = self._optimizer.state.get(parameter, {})
        moments = {kind: state[kind].view(-1) for kind in MOMENTS if kind in state}
        return Held(0, parameter.data.view(-1), moments)

    def updates(self, parameter: nn.Parameter) -> int:
        return int(self._optimizer.state.get(parameter, {}).get("step", 0))

    def start_moments(self, parameter: nn.Parameter, updates: int) -> None:
        _start(self._optimizer.state, parameter, updates)

    def whole_weight(self, parameter: nn.Parameter) -> Tensor:
        return parameter.data.view(-1)

    def begin_load(self) -> None:
        self._optimizer.state.clear()

    def end_load(self) -> None:
        pass

    def publish(self) -> None:
        pass


class _SplitOptimizer(HeldState):
    """ZeRO 1 and 2: weights whole on every rank, of the optimizer's copy and moments a part."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        groups = zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True)
        self._flats = {id(member): flat for group, flat in groups for member in group}

    def held(self, parameter: nn.Parameter) -> Held | None:
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]  # DeepSpeed's
        if mapping is None:
            return None
        place = mapping.hp_fragment_address
        state = self._optimizer.optimizer.state.get(self._flat(parameter), {})
        moments = {kind: state[kind].narrow(0, place.start, place.numel) for kind in MOMENTS if kind in state}
        return Held(mapping.lp_fragment_address.start, mapping.hp_fragment.view(-1), moments)

    def updates(self, parameter: nn.Parameter) -> int:
        return int(self._optimizer.optimizer.state.get(self._flat(parameter), {}).get("step", 0))

    def start_moments(self, parameter: nn.Parameter, updates: int) -> None:
        _start(self._optimizer.optimizer.state, self._flat(parameter), updates)

    def whole_weight(self, parameter: nn.Parameter) -> Tensor:
        return parameter.data.view(-1)

    def begin_load(self) -> None:
        self._optimizer.optimizer.state.clear()

    def end_load(self) -> None:
        pass

    def publish(self) -> None:
        self._optimizer.update_lp_params()

    def _flat(self, parameter: nn.Parameter) -> Tensor:
        flat: Tensor = self._flats[id(parameter)]
        return flat


class _SplitAll(HeldState):
    """ZeRO 3: of weights, optimizer's copy and moments a part; small weights are also whole on every rank."""

    def held(self, parameter: nn.Parameter) -> Held | None:
        group, offset, length = self._place(parameter)
        start = parameter.ds_process_group.rank() * length  # type: ignore[attr-defined]  # DeepSpeed's
        length = min(length, parameter.ds_numel - start)  # type: ignore[attr-defined]
        if length <= 0:
            return None
        flat = self._optimizer.fp32_partitioned_groups_flat[group]
        state = self._optimizer.optimizer.state.get(flat, {})
        moments = {kind: state[kind].narrow(0, offset, length) for kind in MOMENTS if kind in state}
        return Held(start, flat.data.narrow(0, offset, length), moments)

    def updates(self, parameter: nn.Parameter) -> int:
        flat = self._optimizer.fp32_partitioned_groups_flat[self._place(parameter)[0]]
        return int(self._optimizer.optimizer.state.get(flat, {}).get("step", 0))

    def start_moments(self, parameter: nn.Parameter, updates: int) -> None:
        flat = self._optimizer.fp32_partitioned_groups_flat[self._place(parameter)[0]]
        _start(self._optimizer.optimizer.state, flat, updates)

    def whole_weight(self, parameter: nn.Parameter) -> None:
        return None

    def begin_load(self) -> None:
        self._optimizer.optimizer.state.clear()
        self._forget_whole()

    def end_load(self) -> None:
        zero = self._optimizer
        for flat, master, parts in zip(
            zero.fp16_partitioned_groups_flat,
            zero.fp32_partitioned_groups_flat,
            zero.fp16_partitioned_groups,
            strict=True,
        ):
            flat.data.copy_(master.data)
            for part, values in zip(parts, zero.unflatten(flat, parts), strict=True):
                part.data = values.data
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)

    def publish(self) -> None:
        self._forget_whole()
        self.end_load()

    def _forget_whole(self) -> None:
        """Leave of the small weights, too, this rank's part alone."""
        kept = self._optimizer.persistent_parameters
        if kept:
            kept[0].partition(kept)

    def _place(self, parameter: nn.Parameter) -> tuple[int, int, int]:
        group, offset, length = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
        return int(group), int(offset), int(length)


def held_state(optimizer: Any, zero_stage: int) -> HeldState:
    """The view of a DeepSpeed optimizer that belongs to its ZeRO stage."""
    kinds: dict[int, Callable[[Any], HeldState]] = {
        0: _Replicated,
        1: _SplitOptimizer,
        2: _SplitOptimizer,
        3: _SplitAll,
    }
    return kinds[zero_stage](optimizer)


def own_share(
    parameters: Mapping[str, nn.Parameter], *, rank: int, world_size: int
) -> Iterator[tuple[str, int, int]]:
    """What a rank writes of parameters that all ranks have, as (name, from, to): equal shares of all."""
    total = sum(parameter.numel() for parameter in parameters.values())
    first, last = (total * r // world_size for r in (rank, rank + 1))
    at = 0
    for name, parameter in parameters.items():
        start, stop = max(first - at, 0), min(last - at, parameter.numel())
        if start < stop:
            yield name, start, stop
        at += parameter.numel()


def _start(state: Any, key: Tensor, updates: int) -> None:
    """One tensor's moments, which several parameters may share: they have seen what most of these have."""
    moments = state[key]
    moments["step"] = torch.tensor(float(max(updates, int(moments.get("step", 0)))))
    for kind in MOMENTS:
        if kind not in moments:
            moments[kind] = torch.zeros_like(key.data)
