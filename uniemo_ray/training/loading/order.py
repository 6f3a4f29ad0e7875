"""The order in which an epoch shows its images: a function of seed and epoch alone. Pure arithmetic.

A global shuffle would need every file before the first step. Here the pieces of the data set (some 256 rows
of a file) are shuffled; consecutive ones form windows, and the rows of a window are shuffled together. The
first window is small, so that training starts after a few megabytes, and each one doubles up to
`WINDOW_ROWS`. Nothing depends on the number of workers or on a step's batch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.seeds import hash_seed

WINDOW_ROWS = 8192
"""Rows that are shuffled together, about: 1 GB of photos, of which two such windows lie on disk at once."""
FIRST_BYTES = 8 << 20
"""Size of an epoch's first window, at least one piece."""
Places = NDArray[np.int64]
"""(n, 2): piece, and row in it."""


class RowOrder:
    """A sequence of all rows, window by window.

    Args:
        windows: The pieces of each window; every piece is in one of them.
        sizes: Rows of each piece.
        seeds: One for each window, of the order of its rows; None leaves them as they are.
    """

    def __init__(
        self, windows: Sequence[NDArray[np.int64]], sizes: NDArray[np.int64], seeds: Sequence[int] | None
    ) -> None:
        self.windows = tuple(windows)
        self._sizes, self._seeds = sizes, seeds
        counts = [int(sizes[window].sum()) for window in self.windows]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._last: tuple[int, Places] | None = None

    @property
    def rows(self) -> int:
        """Rows of the whole sequence."""
        return int(self._starts[-1])

    def window_at(self, position: int) -> int:
        """Number of the window that a position of the sequence lies in."""
        return int(np.searchsorted(self._starts, position, side="right")) - 1

    def places(self, start: int, stop: int) -> Places:
        """Where the rows at positions `start` to `stop` of the sequence lie, (stop - start, 2)."""
        found, position = [], start
        while position < stop:
            window = self.window_at(position)
            first, end = self._starts[window : window + 2]
            upto = min(stop, int(end))
            found.append(self._window(window)[position - first : upto - first])
            position = upto
        return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)

    def _window(self, number: int) -> Places:
        """All places of one window, in order; the last one asked for is kept."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        pieces = self.windows[number]
        sizes = self._sizes[pieces]
        firsts = np.cumsum(sizes) - sizes
        rows = np.arange(sizes.sum(), dtype=np.int64) - np.repeat(firsts, sizes)
        places = np.stack([np.repeat(pieces, sizes), rows], axis=1)
        if self._seeds is not None:
            places = places[np.random.default_rng(self._seeds[number]).permutation(len(places))]
        self._last = number, places
        return places


def shuffled_order(
    sizes: NDArray[np.int64], lengths: NDArray[np.int64], *, seed: int, epoch: int
) -> RowOrder:
    """The order of one epoch of training.

    Args:
        sizes: Rows of each piece.
        lengths: Bytes of each piece, about.
        seed: Run seed.
        epoch: 0-based.
    """
    pieces = np.random.default_rng(hash_seed(seed, "pieces", epoch)).permutation(len(sizes))
    windows = _cut(pieces.astype(np.int64), sizes, lengths)
    return RowOrder(windows, sizes, [hash_seed(seed, "rows", epoch, i) for i in range(len(windows))])


def plain_order(sizes: NDArray[np.int64]) -> RowOrder:
    """All rows as they lie in the files, for validation; each piece is a window."""
    return RowOrder(list(np.arange(len(sizes), dtype=np.int64)[:, None]), sizes, None)


def training_bounds(rows: int, batch_size: int, *, first: int = 0) -> list[range]:
    """Positions of each step of an epoch from step `first` on; a last batch that is not full is left out."""
    return [range(step * batch_size, (step + 1) * batch_size) for step in range(first, rows // batch_size)]


def validation_bounds(rows: int, batch_size: int, *, world_size: int) -> list[range]:
    """Positions of each batch of a validation set, all rows once.

    What is left at the end is a smaller batch; where it has fewer rows than there are workers it joins the
    batch before.

    Raises:
        ValueError: fewer rows than workers.
    """
    if rows < world_size:
        raise ValueError(f"{rows} validation images are less than one for each of {world_size} workers")
    starts = list(range(0, rows, batch_size))
    if len(starts) > 1 and rows - starts[-1] < world_size:
        starts.pop()
    return [range(a, b) for a, b in zip(starts, [*starts[1:], rows], strict=True)]


def _cut(
    pieces: NDArray[np.int64], sizes: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Runs of pieces: the first one small, each about twice as large as the one before, up to a limit."""
    rows, read = np.cumsum(sizes[pieces]), np.cumsum(lengths[pieces])
    ends = [max(1, int(np.searchsorted(read, FIRST_BYTES, side="right")))]
    while ends[-1] < len(pieces):
        begin = ends[-2] if len(ends) > 1 else 0
        before = int(rows[ends[-1] - 1] - (rows[begin - 1] if begin else 0))
        target = min(WINDOW_ROWS, max(1, 2 * before))
        done = int(rows[ends[-1] - 1])
        if int(rows[-1]) - done < 1.5 * target:  # no window of a few rows at the end
            ends.append(len(pieces))
        else:
            ends.append(max(ends[-1] + 1, int(np.searchsorted(rows, done + target, side="left")) + 1))
    return np.split(pieces, ends[:-1]) if len(pieces) else []
