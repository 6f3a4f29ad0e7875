"""Sorting more keys than fit in memory: sorted runs, splitters from their samples, partitions merged alone.

The splitters are taken from regular samples (Shi and Schaeffer 1992, "Parallel sorting by regular
sampling"): every `step`-th key of each sorted run. Between two neighbouring samples of a run lie at most
`step - 1` other keys, so a partition with S samples of R runs holds at most `S step + R (step - 1)` keys,
however they are distributed.
"""

# R runs, P partitions

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Key = str | int
Positions = NDArray[np.uint32]
_SAMPLES_PER_RUN_AND_RUN = 8
"""Times the number of runs: so the uncertain ends, one step per run, make an eighth of a partition."""


class Merged(NamedTuple):
    """Runs of one partition put in order."""

    positions: list[Positions]
    """For each run, the place of each of its keys in the partition (0-based)."""
    repeated: Key | None
    """A key that occurs twice, if any."""


def sort_keys(keys: pa.Array) -> Positions:
    """Positions that put keys in ascending order; text is compared by code points."""
    return np.asarray(pc.array_sort_indices(keys)).astype(np.uint32)


def find_repeated(ordered: pa.Array) -> Key | None:
    """A key that equals its neighbour in ascending keys, or None."""
    is_same = pc.equal(ordered[1:], ordered[:-1])
    where = pc.index(is_same, value=True).as_py()
    found: Key | None = ordered[where].as_py() if where >= 0 else None
    return found


def sample_step(*, limit: int, runs: int) -> int:
    """Distance of samples with which `choose_splitters` can hold the limit."""
    return max(1, limit // (_SAMPLES_PER_RUN_AND_RUN * runs))


def take_samples(ordered: pa.Array, step: int) -> list[Key]:
    """Every `step`-th of ascending keys, from the first on."""
    samples: list[Key] = ordered.take(pa.array(np.arange(0, len(ordered), step))).to_pylist()
    return samples


def choose_splitters(samples: Sequence[Sequence[Key]], *, step: int, limit: int) -> list[Key]:
    """The P - 1 keys at which partitions begin (but the first), ascending.

    Args:
        samples: of each run, by `take_samples`.
        step: distance of the samples, at most `sample_step`.
        limit: most keys of a partition, when keys are distinct.
    """
    merged = sorted(chain.from_iterable(samples))
    of_one = max(1, (limit - len(samples) * (step - 1)) // step)
    return merged[of_one::of_one]


def cut(ordered: pa.Array, splitters: Sequence[Key]) -> list[pa.Array]:
    """A run's P slices, some empty: slice p has the keys from splitter p - 1 on and below splitter p."""
    ends = [bisect_left(ordered, splitter, key=_plain) for splitter in splitters]
    bounds = [0, *ends, len(ordered)]
    return [ordered[first:end] for first, end in pairwise(bounds)]


def merge(runs: Sequence[pa.Array]) -> Merged:
    """Order the keys of one partition, of which each run is ascending."""
    keys = pa.concat_arrays(runs)
    order = sort_keys(keys)
    positions = np.empty(len(keys), dtype=np.uint32)
    positions[order] = np.arange(len(keys), dtype=np.uint32)
    ends = np.cumsum([len(run) for run in runs])[:-1]
    return Merged(np.split(positions, ends), find_repeated(keys.take(pa.array(order))))


def _plain(scalar: Any) -> Any:
    return scalar.as_py()
