"""A running average of the trained weights (EMA), in fp32, of the part of them that a rank holds."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from uniemo_ray.training.checkpoint import CheckpointReader
from uniemo_ray.training.held_state import HeldState


def decay_at(step: int, decay: float) -> float:
    """Share of the average that stays at the update that follows `step` (from 1 on) optimizer steps.

    It grows with the steps, (1 + step) / (10 + step), so that the first weights are soon forgotten.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The average of this rank's part of every trained parameter.

    Args:
        trained: Parameters by name.
        held: This rank's part of them.
        decay: Largest share of the average that stays at each update, in (0, 1).
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], held: HeldState, decay: float) -> None:
        self._held, self._decay = held, decay
        parts = {name: held.held(parameter) for name, parameter in trained.items()}
        self._own = {name: part for name, part in parts.items() if part is not None}
        self._values = {name: part.weight.detach().clone() for name, part in self._own.items()}

    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 1."""
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._values.values()), self._weights(), 1 - decay_at(step, self._decay)
            )

    def swap(self) -> None:
        """Exchange the average and the weights that train, everywhere they are read; collective."""
        with torch.no_grad():
            for value, weight in zip(self._values.values(), self._weights(), strict=True):
                trained = weight.clone()
                weight.copy_(value)
                value.copy_(trained)
            self._held.publish()

    def part(self, name: str) -> Tensor | None:
        """The average of what this rank holds of a parameter (n,), if anything."""
        return self._values.get(name)

    def load(self, reader: CheckpointReader) -> None:
        """Take up the average of a checkpoint.

        Raises:
            ValueError: it holds none.
        """
        if self._own and not reader.names("average"):
            raise ValueError(
                "the checkpoint holds no averaged weights, but ema_decay is set: take the settings that it "
                "was written with, or remove the stage's folder to train it anew"
            )
        for name, start, value in self._places():
            value.copy_(reader.read("average", name, start, start + value.numel()))

    def _places(self) -> Iterator[tuple[str, int, Tensor]]:
        for name, part in self._own.items():
            yield name, part.start, self._values[name]

    def _weights(self) -> list[Tensor]:
        return [part.weight for part in self._own.values()]
