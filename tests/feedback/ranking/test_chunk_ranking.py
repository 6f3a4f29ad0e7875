"""The steps of the external sort, chunk by chunk, against sorting at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from uniemo_ray.feedback.ranking.chunk_ranking import ChunkRanking, Partition, in_turn, rank_chunks
from uniemo_ray.feedback.ranking.score_chunks import Chunk, Keys, Shard
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store

ROWS, CHUNKS, LIMIT = 40, 3, 20
CHUNKS_OF_ROWS = [Chunk(number, (Shard("a", ROWS - 9), Shard("b", 9))) for number in range(CHUNKS)]


@dataclass(frozen=True)
class Values:
    """Keys of all chunks. A row takes part in `odd` or `even`, and three rows of the last chunk in `late`."""

    keys: np.ndarray

    def __call__(self, chunk: Chunk) -> Mapping[str, Keys]:
        keys = pa.array(self.keys[chunk.number], pa.uint64())
        rows = np.arange(ROWS, dtype=np.uint32)
        found = {"odd": Keys(keys, rows[1::2][::-1].copy()), "even": Keys(keys, rows[::2])}
        return found | ({"late": Keys(keys, rows[:3])} if chunk.number == 2 else {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def values(*, seed: int = 0) -> Values:
    return Values(np.random.default_rng(seed).permutation(1000)[: ROWS * CHUNKS].reshape(CHUNKS, ROWS))


def ranking(store: Store, keys: Values, *, limit: int = LIMIT) -> ChunkRanking:
    return ChunkRanking(store, keys, key_type=pa.uint64(), chunks=CHUNKS, limit=limit)


def ranks_at_once(keys: Values, takes_part: np.ndarray) -> np.ndarray:
    ranks = np.full((CHUNKS, ROWS), -1)
    ranks[takes_part] = keys.keys[takes_part].argsort().argsort()
    return ranks


@pytest.mark.parametrize("limit", [1, LIMIT, 10_000])
def test_ranks_are_those_of_sorting_at_once(store: Store, limit: int) -> None:
    keys = values()
    job = ranking(store, keys, limit=limit)
    layout = rank_chunks(job, CHUNKS_OF_ROWS, in_turn)
    even = np.tile(np.arange(ROWS) % 2 == 0, (CHUNKS, 1))
    late = np.zeros_like(even)
    late[2, :3] = True
    assert layout.sizes == {"even": 60, "late": 3, "odd": 60}
    parts = [number for name in layout.sizes for number in layout.partitions[name]]
    assert parts == list(range(len(parts)))
    assert (len(parts) > 3) == (limit < 60)
    for chunk in CHUNKS_OF_ROWS:
        for name, takes_part in {"even": even, "odd": ~even, "late": late}.items():
            found = job.row_ranks(chunk, layout, [name])
            assert found.tolist() == ranks_at_once(keys, takes_part)[chunk.number].tolist()
        both = job.row_ranks(chunk, layout, ["even", "odd", "unknown"])
        wanted = ranks_at_once(keys, even) + ranks_at_once(keys, ~even) + 1
        assert both.tolist() == wanted[chunk.number].tolist()
        assert both.dtype == np.int64


def test_each_step_tells_its_rows_and_is_done_once(store: Store) -> None:
    keys = values()
    first = ranking(store, keys)
    samples = [first.sample(chunk) for chunk in CHUNKS_OF_ROWS]
    assert list(samples[0]) == ["odd", "even"]
    assert list(samples[2]) == ["odd", "even", "late"]
    splitters = first.choose(samples)
    routed = np.array([first.route(chunk, splitters) for chunk in CHUNKS_OF_ROWS])
    assert routed.sum(axis=1).tolist() == [40, 40, 43]
    assert first.rank(Partition(0, first_rank=5)) == routed[:, 0].sum()

    other = ranking(store, values(seed=1))  # what is recorded is not made again
    assert [other.sample(chunk) for chunk in CHUNKS_OF_ROWS] == samples
    assert other.route(CHUNKS_OF_ROWS[1], splitters) == routed[1].tolist()
    assert other.rank(Partition(0, first_rank=0)) == routed[:, 0].sum()


def test_interim_results_have_names_by_which_an_interrupted_run_finds_them(store: Store) -> None:
    rank_chunks(ranking(store, values(), limit=10_000), CHUNKS_OF_ROWS, in_turn)
    steps = {"samples": CHUNKS, "routed": CHUNKS, "ranked": 3}
    names = {f"{step}/{number:05d}" for step, count in steps.items() for number in range(count)}
    assert set(store.list()) == {f"{name}.{ending}" for name in names for ending in ("json", "arrow")}


def test_partitions_stay_within_the_limit(store: Store) -> None:
    job = ranking(store, values())
    splitters = job.choose([job.sample(chunk) for chunk in CHUNKS_OF_ROWS])
    sizes = np.sum([job.route(chunk, splitters) for chunk in CHUNKS_OF_ROWS], axis=0)
    assert len(sizes) == sum(len(ends) + 1 for ends in splitters.values())
    assert sizes.max() <= LIMIT


@pytest.mark.parametrize("chunk", [0, 2], ids=["in one chunk", "in two chunks"])
def test_a_repeated_key_is_named(store: Store, chunk: int) -> None:
    keys = values()
    keys.keys[chunk, 6] = keys.keys[0, 4]
    with pytest.raises(ValueError, match=f"image {keys.keys[0, 4]} more than once"):
        rank_chunks(ranking(store, keys), CHUNKS_OF_ROWS, in_turn)


def test_a_chunk_with_a_repeated_key_is_refused_before_others_are_routed(store: Store) -> None:
    keys = values()
    keys.keys[0, 6] = keys.keys[0, 4]
    with pytest.raises(ValueError, match=f"image {keys.keys[0, 4]} more than once"):
        ranking(store, keys).sample(CHUNKS_OF_ROWS[0])


def test_the_plain_runner_keeps_the_order() -> None:
    assert in_turn(str, [3, 1, 2]) == ["3", "1", "2"]
