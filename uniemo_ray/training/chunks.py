"""A rank's share of a global batch in chunks, each of which passes the network at once.

Every value of an objective is a mean over rows, and the engine weighs a chunk's values by its rows. Two
things do not come out of the chunks one by one, and `Whole` brings them: means over labelled rows alone, and
the contrast between all rows of the batch. Its gradient with respect to the embeddings is computed once and
cached (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021); each
chunk's backward pass then starts from its part.
"""

# B rows of one rank, E joint embedding width

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from uniemo_ray.training.gather import sum_over_ranks


class CachedContrast(NamedTuple):
    """A contrast that was computed before, for one chunk.

    Attributes:
        value: Scalar, of the whole contrast.
        gradient: (rows, E) with respect to the chunk's embeddings, of the sum over the batch: the contrast
            counts as the mean over rows of embedding times gradient.
        temperature_gradient: With respect to the temperature.
    """

    value: Tensor
    gradient: Tensor
    temperature_gradient: Tensor

    def surrogate(self, embedding: Tensor, temperature: Tensor | float) -> Tensor:
        """The contrast's value, with the gradient that this chunk contributes."""
        part = (embedding * self.gradient).sum() / len(embedding)
        if isinstance(temperature, Tensor):
            part = part + (temperature * self.temperature_gradient).sum()
        return self.value + (part - part.detach())


@dataclass(frozen=True)
class Whole:
    """What a forward pass on some rows must know of the global batch.

    Attributes:
        rows: Rows of each rank.
        factors: Kind of label to the factor, a scalar on the engine's device, that turns the mean over the
            chunk's labelled rows into a part of the mean over all labelled rows of the batch.
        contrasts: Kind to contrast, where they are computed already; empty where the forward pass does it.
    """

    rows: Sequence[int]
    factors: Mapping[str, Tensor] = field(default_factory=dict)
    contrasts: Mapping[str, CachedContrast] = field(default_factory=dict)


class Embeddings(NamedTuple):
    """What is contrasted of some rows.

    Attributes:
        queries: Kind to embeddings (B, E), fp32.
        temperatures: Kind to temperature.
    """

    queries: dict[str, Tensor]
    temperatures: dict[str, Tensor | float]


@runtime_checkable
class Contrastive(Protocol):
    """An objective that looks beyond the rows of a forward pass.

    Its `forward(batch, whole=None, embeds=False)` returns the losses, or `Embeddings` when `embeds`.
    """

    def label_counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows with each kind of label that a term averages over; empty if there is no such term."""

    def is_contrasted(self) -> bool:
        """Whether there is anything to contrast."""

    def contrast(
        self,
        kind: str,
        queries: Tensor,
        attributes: Tensor,
        temperature: Tensor | float,
        rows: Sequence[int] | None,
    ) -> Tensor:
        """The contrast of one kind between this rank's rows, or those of all ranks."""


@dataclass(frozen=True)
class Chunk:
    """Rows that pass the network at once.

    Attributes:
        rows: Within this rank's share.
        index: Which chunk of the global batch it is: it draws the random numbers of that chunk.
        weight: Its rows over the mean rows of a rank: sums over chunks, averaged over ranks, are means over
            the rows of the batch. 0 for a chunk that only keeps step with ranks that have more of them.
        whole: What it must know of the global batch.
    """

    rows: range
    index: int
    weight: float
    whole: Whole

    def of(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The chunk's rows of this rank's share."""
        return {name: tensor[self.rows.start : self.rows.stop] for name, tensor in batch.items()}


def split_share(
    batch: Mapping[str, Tensor],
    objective: object,
    *,
    rank: int,
    micro_batch: int | None,
    rows: Sequence[int],
    device: torch.device,
) -> list[Chunk]:
    """Chunks of this rank's share, equally many on every rank; collective.

    Nothing here waits for the device: the CPU goes on to the forward pass.

    Args:
        batch: The share, batch first. The shares of all ranks, in order, are the batch.
        objective: What will run on them.
        rank: This rank.
        micro_batch: Rows of a chunk (the last one may have fewer); None for one chunk.
        rows: Of each rank's share.
        device: Where the objective runs.

    Raises:
        ValueError: this rank has another number of rows.
    """
    have = len(next(iter(batch.values())))
    if have != rows[rank]:
        raise ValueError(f"rank {rank} has {have} images of a batch in which its share is {rows[rank]}")
    count = objective.label_counts if isinstance(objective, Contrastive) else _no_labels
    all_labels = sum_over_ranks(count(batch), device)
    own, total = range(have), sum(rows)
    size = micro_batch or have
    first = rank if micro_batch is None else sum(rows[:rank]) // micro_batch
    chunks = []
    for number, start in enumerate(range(0, have, size)):
        part = own[start : start + size]
        found = count({name: tensor[part.start : part.stop] for name, tensor in batch.items()})
        factors = {
            kind: found[kind].to(device, torch.float32) * (total / len(part)) / labels.clamp(min=1)
            for kind, labels in all_labels.items()
        }
        weight = len(part) * len(rows) / total
        chunks.append(Chunk(part, first + number, weight, Whole(rows, factors)))
    most = max(-(-count_ // (micro_batch or count_)) for count_ in rows)
    return chunks + [Chunk(c.rows, c.index, 0.0, c.whole) for c in chunks[:1] * (most - len(chunks))]


def cache_contrasts(
    chunks: Sequence[Chunk],
    objective: Contrastive,
    batch: Mapping[str, Tensor],
    embed: Callable[[Chunk], Embeddings],
) -> list[Chunk]:
    """The chunks with the contrasts of the whole batch, if there are any; collective.

    Args:
        chunks: Of `split_share`.
        objective: Computes a contrast from embeddings.
        batch: This rank's share.
        embed: Runs the network on one chunk, with the random numbers of that chunk; on all chunks, because
            ranks must keep step.
    """
    if not objective.is_contrasted():
        return list(chunks)
    with torch.no_grad():
        parts = [embed(chunk) for chunk in chunks]
    real = [part for part, chunk in zip(parts, chunks, strict=True) if chunk.weight]
    found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for kind, temperature in real[0].temperatures.items():
        queries = torch.cat([part.queries[kind] for part in real]).detach().requires_grad_()
        learnt = torch.as_tensor(temperature, device=queries.device).detach().float().requires_grad_()
        with torch.enable_grad():
            attributes = batch[kind].to(queries.device)
            value = objective.contrast(kind, queries, attributes, learnt, chunks[0].whole.rows)
            gradients = torch.autograd.grad(value, (queries, learnt), materialize_grads=True)
        found[kind] = value.detach(), gradients[0] * len(queries), gradients[1]
    return [Chunk(chunk.rows, chunk.index, chunk.weight, _with_contrasts(chunk, found)) for chunk in chunks]


def _with_contrasts(chunk: Chunk, found: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Whole:
    own = slice(chunk.rows.start, chunk.rows.stop)
    cached = {
        kind: CachedContrast(value, gradient[own], temperature)
        for kind, (value, gradient, temperature) in found.items()
    }
    return Whole(chunk.whole.rows, chunk.whole.factors, cached)


def _no_labels(_batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {}
