"""Rows by their places, from pieces that are opened ahead in the order of an epoch."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from uniemo_ray.training.batches import Raw
from uniemo_ray.training.loading.cache import OpenPiece, PieceCache
from uniemo_ray.training.loading.order import Places, RowOrder
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.sampling import copy_id

_FETCHERS = 2


class PieceFeed:
    """The windows around a position of an order, open, and the one after them on its way.

    Args:
        data: The rows.
        order: Of this epoch, over `data.sizes`.
        cache: Of this machine.
        first: Where a worker begins within a window, as a share of it, so that those of a machine fetch
            different pieces.
    """

    def __init__(self, data: ShardRows, order: RowOrder, cache: PieceCache, *, first: float = 0.0) -> None:
        self._data, self._order, self._cache, self._first = data, order, cache, first
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="pieces")
        self._ahead: dict[int, Future[OpenPiece | None]] = {}
        self._open: dict[int, OpenPiece] = {}
        self._window = -1, -1

    def rows(self, span: range) -> Raw:
        """The rows at positions of the order, which only ever grow; waits for their pieces alone."""
        self._advance(span)
        return self.read(self._order.places(span.start, span.stop))

    def read(self, places: Places) -> Raw:
        """The rows at some places."""
        tables = {int(piece): self._piece(int(piece)).table for piece in np.unique(places[:, 0])}
        return take_rows(self._data, tables, places)

    def close(self) -> None:
        """Give every piece back."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for piece in list(self._ahead):
            self._drop(piece)

    def _advance(self, span: range) -> None:
        first, last = self._order.window_at(span.start), self._order.window_at(span.stop - 1)
        if (first, last) == self._window:
            return
        self._window = first, last
        windows = self._order.windows
        wanted = [int(piece) for number in range(first, last + 1) for piece in self._turned(number)]
        coming = [int(piece) for piece in self._turned(last + 1)] if last + 1 < len(windows) else []
        for piece in self._ahead.keys() - {*wanted, *coming}:
            self._drop(piece)
        for piece in (*wanted, *coming):
            if piece not in self._ahead:
                self._ahead[piece] = self._pool.submit(self._fetch, piece, piece in wanted)

    def _turned(self, window: int) -> Sequence[int]:
        pieces = self._order.windows[window]
        turned: Sequence[int] = np.roll(pieces, -int(self._first * len(pieces))).tolist()
        return turned

    def _fetch(self, piece: int, is_needed: bool) -> OpenPiece | None:
        data = self._data
        return self._cache.open(data.pieces[piece], data.columns, data.filesystem, is_needed=is_needed)

    def _piece(self, piece: int) -> OpenPiece:
        if piece not in self._open:
            found = self._ahead[piece].result()
            found = found if found is not None else self._fetch(piece, True)
            assert found is not None
            self._open[piece] = found
        return self._open[piece]

    def _drop(self, piece: int) -> None:
        future, opened = self._ahead.pop(piece), self._open.pop(piece, None)
        if opened is None and not future.cancel() and not future.cancelled() and future.exception() is None:
            opened = future.result()
        if opened is not None:
            opened.close()


def take_rows(data: ShardRows, tables: dict[int, Any], places: Places) -> Raw:
    """Columns of the rows at some places, as numpy arrays of objects; copies have ids of their own.

    Args:
        data: The rows.
        tables: The pieces that occur.
        places: (n, 2).
    """
    columns = {name: np.empty(len(places), dtype=object) for name in data.columns}
    for i, (piece, shown) in enumerate(places.tolist()):
        row, copy = data.row_and_copy(piece, shown)
        for name, column in columns.items():
            column[i] = tables[piece][name][row].as_py()
        if copy:
            columns["image_id"][i] = copy_id(columns["image_id"][i], copy)
    return columns
