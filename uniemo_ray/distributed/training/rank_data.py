"""The batches of one rank: its shares of an epoch's order, decoded here or on other nodes' CPUs."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import torch

from uniemo_ray.distributed.training.cluster_decode import ClusterDecoder
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.pools import find_pool
from uniemo_ray.training.batches import Batch, MakesBatches
from uniemo_ray.training.loading.batches import Share, load_batches
from uniemo_ray.training.loading.cache import PieceCache
from uniemo_ray.training.loading.feed import PieceFeed
from uniemo_ray.training.loading.order import (
    Places,
    RowOrder,
    plain_order,
    shuffled_order,
    training_bounds,
    validation_bounds,
)
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.loading.threads import decoding_threads


class Place(NamedTuple):
    """Where a rank is among all, and among those of its machine."""

    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1


class RankData:
    """Training and validation batches of one rank.

    Args:
        work: What the driver tells.
        collate: Rows to batches.
        place: Of this rank.
    """

    def __init__(self, work: Work, collate: MakesBatches, place: Place) -> None:
        self._work, self._collate, self._place = work, collate, place
        self._train = work.settings.train
        self._cache = PieceCache(budget_bytes=work.cache_bytes)
        self._cache.clean()
        self._threads = decoding_threads(work.threads, has_gpu=torch.cuda.is_available())

    def training(self, epoch: int, *, first: int) -> Iterator[Batch]:
        """The batches of an epoch from step `first` on."""
        data = self._work.data
        order = shuffled_order(data.sizes, data.lengths, seed=self._work.seed, epoch=epoch)
        bounds = training_bounds(order.rows, self._train.batch_size, first=first)
        share = Share(self._place.rank, self._place.world_size, self._train.micro_batch)
        return self._batches(data, order, bounds, share, epoch=epoch, is_training=True)

    def validation(self) -> Iterator[Batch]:
        """All validation images once, in the order of the shards."""
        data = self._work.val
        if data is None:
            raise ValueError("there are no validation images")
        order = plain_order(data.sizes)
        bounds = validation_bounds(order.rows, self._train.batch_size, world_size=self._place.world_size)
        share = Share(self._place.rank, self._place.world_size)
        return self._batches(data, order, bounds, share, epoch=0, is_training=False)

    def _batches(
        self,
        data: ShardRows,
        order: RowOrder,
        bounds: list[range],
        share: Share,
        *,
        epoch: int,
        is_training: bool,
    ) -> Generator[Batch]:
        is_pinned = torch.cuda.is_available()
        collate = partial(self._collate, epoch=epoch, is_training=is_training)
        if self._train.decode == "cluster":
            pool = find_pool(self._work.settings.config, "data")
            decoder = ClusterDecoder(data, collate, cache_bytes=self._work.cache_bytes, pool=pool)
            ahead = decoder.tasks_ahead(share, bounds)
            there = load_batches(
                bounds, share, read=_places(order), decode=decoder, threads=ahead, is_pinned=is_pinned
            )
            with closing(there):
                yield from there
            return
        first = self._place.local_rank / self._place.local_world_size
        feed = PieceFeed(data, order, self._cache, first=first)
        here = load_batches(
            bounds, share, read=feed.rows, decode=collate, threads=self._threads, is_pinned=is_pinned
        )
        with closing(feed), closing(here):
            yield from here


def _places(order: RowOrder) -> Callable[[range], Places]:
    return lambda span: order.places(span.start, span.stop)
