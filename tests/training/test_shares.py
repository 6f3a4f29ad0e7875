"""Rows of a global batch, dealt to ranks."""

from itertools import chain

import pytest

from uniemo_ray.training.shares import rank_chunks


def dealt(rows: int, world_size: int, micro_batch: int | None) -> list[list[range]]:
    return [
        rank_chunks(rows, rank=rank, world_size=world_size, micro_batch=micro_batch)
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("micro_batch", [None, 1, 4, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [20, 32, 33])
def test_the_chunks_of_all_ranks_are_the_batch(rows, world_size, micro_batch):
    chunks = list(chain.from_iterable(dealt(rows, world_size, micro_batch)))
    assert list(chain.from_iterable(chunks)) == list(range(rows))


def test_chunks_do_not_depend_on_the_number_of_ranks():
    alone = rank_chunks(30, rank=0, world_size=1, micro_batch=4)
    assert [len(chunk) for chunk in alone] == [4, 4, 4, 4, 4, 4, 4, 2]
    for world_size in (2, 3, 8):
        assert list(chain.from_iterable(dealt(30, world_size, 4))) == alone


def test_whole_chunks_are_dealt_nearly_equally():
    assert [len(chunks) for chunks in dealt(32, 3, 4)] == [3, 3, 2]
    assert [[len(chunk) for chunk in chunks] for chunks in dealt(32, 3, None)] == [[11], [11], [10]]


@pytest.mark.parametrize(("rows", "world_size", "micro_batch"), [(2, 3, None), (8, 3, 4), (0, 1, None)])
def test_a_rank_without_rows_is_refused(rows, world_size, micro_batch):
    with pytest.raises(ValueError, match=r"less than one for each of \d workers: lower resources.workers"):
        rank_chunks(rows, rank=0, world_size=world_size, micro_batch=micro_batch)
