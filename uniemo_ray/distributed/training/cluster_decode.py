"""Decoding on other nodes' CPUs: `stageN.decode: cluster`."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import ray

from uniemo_ray.config import Config
from uniemo_ray.distributed.autoscaling import growth
from uniemo_ray.distributed.waiting import living_nodes
from uniemo_ray.pools import Pool, find_pool
from uniemo_ray.training.batches import Batch, Raw
from uniemo_ray.training.loading.batches import BATCHES_AHEAD, Share
from uniemo_ray.training.loading.cache import OpenPiece, PieceCache
from uniemo_ray.training.loading.feed import take_rows
from uniemo_ray.training.loading.order import Places
from uniemo_ray.training.loading.pieces import ShardRows

logger = logging.getLogger(__name__)
MOST_TASKS = 64
"""Parts of batches that a rank has under way at a time."""
_OPEN_PIECES = 64
_opened: "OrderedDict[str, OpenPiece]" = OrderedDict()
"""What a process that decodes has open; it lives from task to task."""


def check_spare_cpu(config: Config, section: str) -> None:
    """Decoding in the cluster needs a CPU that no worker holds, or training waits for one.

    With an autoscaler that is only said: it adds a machine.

    Raises:
        ValueError: there is none, and nothing adds machines to the cluster.
    """
    train, data = find_pool(config, "train"), find_pool(config, "data")
    nodes = [node for node in living_nodes() if data.accepts(node.get("Labels") or {})]
    is_shared = any(train.accepts(node.get("Labels") or {}) for node in nodes)
    total = sum(node["Resources"].get("CPU", 0) for node in nodes)
    taken = train.min_actors * train.cpus if is_shared else 0
    if total - taken >= 1:
        return
    line = (
        f"{section}.decode is 'cluster' and the {train.min_actors} workers take {taken} of "
        f"{total:g} CPUs, so none is left to decode"
    )
    if growth().is_static:
        raise ValueError(f"{line}: set {section}.decode to worker, or add a node")
    logger.warning("%s: it waits for a machine of pool %s", line, data.shown)


class ClusterDecoder:
    """Decodes parts of batches in tasks; the bytes are those that a worker's own thread would make.

    Args:
        data: Rows of the shards, which every node must be able to read.
        collate: Rows to a batch.
        cache_bytes: Budget of a node's cache.
        pool: The nodes that decode.
    """

    def __init__(
        self, data: ShardRows, collate: Callable[[Raw], Batch], *, cache_bytes: int | None, pool: Pool
    ) -> None:
        self._common = ray.put((data, collate, cache_bytes))
        self._decode: Any = _decode.options(**pool.selectors())

    def tasks_ahead(self, share: Share, bounds: Sequence[range]) -> int:
        """Threads that each wait for a task: as many as some batches have parts."""
        parts = max((len(share.spans(batch)) for batch in bounds), default=1)
        return min(MOST_TASKS, BATCHES_AHEAD * parts)

    def __call__(self, places: Places) -> Batch:
        """One part; in any thread."""
        batch: Batch = ray.get(self._decode.remote(self._common, places))
        return batch


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_retries=3)
def _decode(common: tuple[ShardRows, Callable[[Raw], Batch], int | None], places: Places) -> Batch:
    import torch

    torch.set_num_threads(1)
    data, collate, cache_bytes = common
    tables: dict[int, Any] = {}
    for piece in sorted({int(piece) for piece in places[:, 0]}):
        tables[piece] = _piece(data, piece, cache_bytes).table
    return collate(take_rows(data, tables, places))


def _piece(data: ShardRows, number: int, cache_bytes: int | None) -> OpenPiece:
    piece = data.pieces[number]
    name = piece.name(data.columns)
    if name not in _opened:
        opened = PieceCache(budget_bytes=cache_bytes).open(piece, data.columns, data.filesystem)
        assert opened is not None
        _opened[name] = opened
        if len(_opened) > _OPEN_PIECES:
            _opened.popitem(last=False)[1].close()
    _opened.move_to_end(name)
    return _opened[name]
