"""The batches of one worker, in the order of an epoch, decoded ahead by threads."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple, TypeVar

from uniemo_ray.training.batches import Batch, joined
from uniemo_ray.training.prefetch import prefetch
from uniemo_ray.training.shares import rank_chunks

PART_ROWS = 16
"""Images that one thread decodes at a time: parts of a batch, so that the first batch is soon there."""
BATCHES_AHEAD = 2
_Item = TypeVar("_Item")


class Share(NamedTuple):
    """Which rows of every batch a worker has."""

    rank: int
    world_size: int
    micro_batch: int | None = None
    """Rows of a chunk; None for one chunk for each worker."""

    def spans(self, batch: range) -> list[range]:
        """Positions of this worker's rows, in runs of at most `PART_ROWS`.

        Raises:
            ValueError: it would have none.
        """
        chunks = rank_chunks(
            len(batch), rank=self.rank, world_size=self.world_size, micro_batch=self.micro_batch
        )
        first, last = batch.start + chunks[0].start, batch.start + chunks[-1].stop
        return [range(start, min(start + PART_ROWS, last)) for start in range(first, last, PART_ROWS)]


def load_batches(
    bounds: Sequence[range],
    share: Share,
    *,
    read: Callable[[range], _Item],
    decode: Callable[[_Item], Batch],
    threads: int,
    is_pinned: bool,
) -> Generator[Batch]:
    """One worker's part of each batch.

    Args:
        bounds: Positions of the batches in the order.
        share: Of this worker.
        read: Positions, which only grow, to what `decode` takes; called by one thread at a time.
        decode: In any thread.
        threads: That decode; 0 for none beside the caller's, which pays on a single CPU.
        is_pinned: Whether tensors go into memory that a GPU fetches from by itself.
    """
    spans = [share.spans(batch) for batch in bounds]
    items = (read(span) for batch in spans for span in batch)
    most = max((len(batch) for batch in spans), default=1)
    if threads:
        depth = max(BATCHES_AHEAD * most, threads)
        parts = prefetch(items, decode, depth=depth, threads=threads)
    else:
        parts = (decode(item) for item in items)
    batches = _joined(parts, spans, bounds, is_pinned=is_pinned)
    # Joining and pinning copy whole batches, beside the step as well.
    return prefetch(batches, _same, depth=1) if threads else batches


def _joined(
    parts: Generator[Batch], spans: Sequence[Sequence[range]], bounds: Sequence[range], *, is_pinned: bool
) -> Generator[Batch]:
    with closing(parts):
        for mine, batch in zip(spans, bounds, strict=True):
            whole = joined(list(islice(parts, len(mine))), total=len(batch), is_pinned=is_pinned)
            wanted = sum(len(span) for span in mine)
            if len(whole.image_ids) != wanted:
                raise RuntimeError(f"a share of {len(whole.image_ids)} images came in place of {wanted}")
            yield whole


def _same(batch: Batch) -> Batch:
    return batch
