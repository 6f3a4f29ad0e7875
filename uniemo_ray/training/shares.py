"""Which rows of a global batch a rank works on, and in which chunks. Pure arithmetic."""

from itertools import pairwise


def rank_chunks(rows: int, *, rank: int, world_size: int, micro_batch: int | None) -> list[range]:
    """Rows of a global batch that one rank takes, in chunks that each pass the network at once.

    The chunks of all ranks, in order of the ranks, are the batch. With `micro_batch` they are the same
    whatever the number of ranks, and whole chunks are dealt: 8 chunks are 3, 3 and 2 for three ranks.

    Args:
        rows: Of the global batch.
        rank: Of this rank, from 0.
        world_size: Number of ranks.
        micro_batch: Rows of a chunk (the last one may have fewer); None for one chunk for each rank.

    Returns:
        One range for each chunk, at least one.

    Raises:
        ValueError: a rank would get no row.
    """
    if micro_batch is None:
        bounds = _split(rows, world_size)
        chunks = [range(start, stop) for start, stop in pairwise(bounds)]
        first, last = rank, rank + 1
    else:
        chunks = [range(start, min(start + micro_batch, rows)) for start in range(0, rows, micro_batch)]
        first, last = _split(len(chunks), world_size)[rank : rank + 2]
    if len(chunks) < world_size or rows < world_size:
        raise ValueError(
            f"a batch of {rows} images in chunks of {micro_batch or 1} is less than one for each of "
            f"{world_size} workers: lower resources.workers or micro_batch, or raise batch_size"
        )
    return chunks[first:last]


def share_rows(rows: int, *, world_size: int, micro_batch: int | None) -> list[int]:
    """How many rows of a global batch each rank takes, as `rank_chunks` deals them."""
    shares = (
        rank_chunks(rows, rank=rank, world_size=world_size, micro_batch=micro_batch)
        for rank in range(world_size)
    )
    return [share[-1].stop - share[0].start for share in shares]


def _split(count: int, parts: int) -> list[int]:
    """Bounds of `parts` nearly equal runs of `count` things; the first ones are the longer ones."""
    size, longer = divmod(count, parts)
    return [part * size + min(part, longer) for part in range(parts + 1)]
