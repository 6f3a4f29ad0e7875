"""Exact ranks of all rows of many chunks: an external sort whose steps each hold a bounded number of rows.

1. `sample`: sort each chunk's keys; note the order, and every n-th key.
2. `route`: cut each chunk's ordered keys at the splitters; one slice for each partition.
3. `rank`: merge one partition's slices of all chunks; its ranks follow those of the partitions before it.
4. `row_ranks`: collect one chunk's ranks from the partitions, back in the order of its rows.

Each step of each chunk or partition is done once and recorded in the scratch folder.
"""

# M rows of a chunk, P partitions

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from uniemo_ray.feedback.ranking.external_sort import (
    Key,
    choose_splitters,
    cut,
    find_repeated,
    merge,
    sample_step,
    sort_keys,
    take_samples,
)
from uniemo_ray.feedback.ranking.score_chunks import Chunk, Keys
from uniemo_ray.feedback.ranking.scratch import once, read_all_arrays, read_arrays, write_arrays
from uniemo_ray.feedback.verdicts import Ints
from uniemo_ray.store.base import Store

Samples = Mapping[str, Sequence[Key]]
"""Name of a ranking to some of its keys, ascending."""
T = TypeVar("T")
R = TypeVar("R")


class Runner(Protocol):
    """Does one piece of work for each item, here or elsewhere, and gives the results in order."""

    def __call__(self, work: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
        """Results, one per item. `work` and items can be pickled."""
        ...


def in_turn(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The plainest `Runner`: one after the other in this process."""
    return [work(item) for item in items]


class Partition(NamedTuple):
    """Neighbouring ranks that one task finds."""

    number: int
    first_rank: int


class Layout(NamedTuple):
    """Where the ranks lie."""

    sizes: dict[str, int]
    """Name of a ranking to its rows."""
    partitions: dict[str, range]
    """Name of a ranking to the numbers of its partitions."""


@dataclass(frozen=True)
class ChunkRanking:
    """The steps for one kind of keys; any number of separate rankings (such as groups) at once."""

    scratch: Store
    read: Callable[[Chunk], Mapping[str, Keys]]
    """Keys of a chunk for each ranking. No key may occur twice in a ranking."""
    key_type: pa.DataType
    chunks: int
    """How many there are."""
    limit: int
    """Most rows of a partition."""

    def sample(self, chunk: Chunk) -> Samples:
        """Sort a chunk.

        Raises:
            ValueError: a key that occurs twice.
        """
        samples: Samples = once(self.scratch, _name("samples", chunk.number), lambda: self._sample(chunk))
        return samples

    def choose(self, samples: Sequence[Samples]) -> Samples:
        """The splitters of each ranking, from all chunks' samples."""
        step = sample_step(limit=self.limit, runs=self.chunks)
        names = sorted({name for of_chunk in samples for name in of_chunk})
        return {
            name: choose_splitters([s.get(name, ()) for s in samples], step=step, limit=self.limit)
            for name in names
        }

    def route(self, chunk: Chunk, splitters: Samples) -> list[int]:
        """Cut a chunk's ordered keys for all P partitions; returns the rows for each."""
        sizes: list[int] = once(
            self.scratch, _name("routed", chunk.number), lambda: self._route(chunk, splitters)
        )
        return sizes

    def rank(self, partition: Partition) -> int:
        """Find the ranks of a partition; returns its rows.

        Raises:
            ValueError: a key that occurs twice.
        """
        rows: int = once(self.scratch, _name("ranked", partition.number), lambda: self._rank(partition))
        return rows

    def row_ranks(self, chunk: Chunk, layout: Layout, names: Iterable[str]) -> Ints:
        """Ranks (M,) of a chunk's rows, each in the one of the named rankings that has it; -1 for others."""
        ranks = np.full(sum(shard.rows for shard in chunk.shards), -1, dtype=np.int64)
        orders = self._orders(chunk)
        for name in set(names) & set(orders):
            files = [f"{_name('ranked', number)}.arrow" for number in layout.partitions[name]]
            ranks[orders[name]] = pa.concat_arrays(read_arrays(self.scratch, files, chunk.number))
        return ranks

    def _sample(self, chunk: Chunk) -> Samples:
        samples, orders = {}, []
        step = sample_step(limit=self.limit, runs=self.chunks)
        for name, (keys, rows) in self.read(chunk).items():
            order = rows[sort_keys(keys.take(pa.array(rows)))]
            ordered = keys.take(pa.array(order))
            _refuse(find_repeated(ordered))
            samples[name] = take_samples(ordered, step)
            orders.append(pa.array(order))
        write_arrays(self.scratch, f"{_name('samples', chunk.number)}.arrow", orders, pa.uint32())
        return samples

    def _route(self, chunk: Chunk, splitters: Samples) -> list[int]:
        keys, orders, slices = self.read(chunk), self._orders(chunk), []
        for name, ends in splitters.items():
            ordered = keys[name].keys.take(pa.array(orders[name])) if name in orders else self._no_keys()
            slices += cut(ordered, ends)
        write_arrays(self.scratch, f"{_name('routed', chunk.number)}.arrow", slices, self.key_type)
        return [len(part) for part in slices]

    def _rank(self, partition: Partition) -> int:
        files = [f"{_name('routed', number)}.arrow" for number in range(self.chunks)]
        positions, repeated = merge(read_arrays(self.scratch, files, partition.number))
        _refuse(repeated)
        ranks = [pa.array(of_run + np.uint32(partition.first_rank)) for of_run in positions]
        write_arrays(self.scratch, f"{_name('ranked', partition.number)}.arrow", ranks, pa.uint32())
        return sum(map(len, ranks))

    def _orders(self, chunk: Chunk) -> dict[str, Ints]:
        name = _name("samples", chunk.number)
        arrays = read_all_arrays(self.scratch, f"{name}.arrow")
        orders = [np.asarray(array).astype(np.int64) for array in arrays]
        return dict(zip(self.scratch.read_json(f"{name}.json"), orders, strict=True))

    def _no_keys(self) -> pa.Array:
        return pa.array([], self.key_type)


def rank_chunks(ranking: ChunkRanking, chunks: Sequence[Chunk], run: Runner) -> Layout:
    """Do the first three steps for all chunks; what was done before is not done again."""
    splitters = ranking.choose(list(run(ranking.sample, chunks)))
    routed = list(run(partial(ranking.route, splitters=splitters), chunks))
    rows = np.sum(routed, axis=0).tolist()  # (P,)
    sizes, numbers = {}, {}
    partitions: list[Partition] = []
    for name, ends in splitters.items():
        first = len(partitions)
        own = rows[first : first + len(ends) + 1]
        starts = list(accumulate(own, initial=0))
        sizes[name], numbers[name] = starts[-1], range(first, first + len(own))
        partitions += [Partition(first + i, start) for i, start in enumerate(starts[:-1])]
    list(run(ranking.rank, partitions))
    return Layout(sizes, numbers)


def _name(step: str, number: int) -> str:
    return f"{step}/{number:05d}"


def _refuse(repeated: Key | None) -> None:
    # Keys of scores end in the rank of their image id, so only an image id can repeat.
    if repeated is not None:
        raise ValueError(f"scores hold image {repeated!r} more than once: each image may be scored only once")
