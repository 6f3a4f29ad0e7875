"""Chunks of score shards and the keys that order their rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.feedback.ranking.score_chunks import (
    Chunk,
    Shard,
    id_keys,
    make_chunks,
    read_chunk,
    score_keys,
)
from uniemo_ray.feedback.verdicts import NEEDED
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import DamagedError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import ShardEntry, commit_shard


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def scores(ids: list[str | None], emotions: list[str | None] | None = None) -> pa.Table:
    rows = [
        {"image_id": one, "emotion": emotion, "emo_score": place / 8, "sem_score": 0.5, "reason": None}
        for place, (one, emotion) in enumerate(zip(ids, emotions or ["awe"] * len(ids), strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=NEEDED)


def commit(store: Store, *parts: pa.Table) -> list[ShardEntry]:
    names = [f"scores/part-{number:05d}" for number in range(len(parts))]
    return [commit_shard(store, name, part, plan_hash="x") for name, part in zip(names, parts, strict=True)]


def test_neighbouring_shards_share_a_chunk_up_to_the_limit(store: Store) -> None:
    entries = commit(store, *(scores([f"{n}-{i}" for i in range(n)]) for n in (2, 3, 1, 7, 1)))
    chunks = make_chunks(entries, limit=5)
    assert [[shard.rows for shard in chunk.shards] for chunk in chunks] == [[2, 3], [1], [7], [1]]
    assert [chunk.number for chunk in chunks] == [0, 1, 2, 3]
    assert chunks[0].shards[1] == Shard("scores/part-00001", 3)
    assert len(make_chunks(entries, limit=14)) == 1
    assert make_chunks([], limit=5) == []


def test_a_chunk_has_the_rows_of_its_shards_in_order_and_the_asked_columns(store: Store) -> None:
    parts = [scores(["b", "a"]), scores(["c"])]
    (chunk,) = make_chunks(commit(store, *parts), limit=9)
    table = read_chunk(store, chunk, ["image_id", "emo_score"])
    assert table.to_pydict() == {"image_id": ["b", "a", "c"], "emo_score": [0.0, 0.125, 0.0]}
    assert table.schema.metadata is None


def test_damaged_shards_are_told_from_a_disk_that_fails(store: Store, tmp_path: Path) -> None:
    (chunk,) = make_chunks(commit(store, scores(["a", "b"])), limit=9)
    path = tmp_path / "scores" / "part-00000.parquet"
    whole = path.read_bytes()
    with pytest.raises(DamagedError, match=r"part-00000\.parquet has 2 rows, its entry says 3"):
        read_chunk(store, Chunk(0, (Shard("scores/part-00000", 3),)), ["image_id"])
    path.write_bytes(whole[:-9])
    with pytest.raises(DamagedError, match=r"part-00000\.parquet is no readable Parquet"):
        read_chunk(store, chunk, ["image_id"])
    pq.write_table(pa.table({"image_id": ["a", "b"]}), path)
    with pytest.raises(ValueError, match=r"part-00000\.parquet table .* 'emotion' is missing"):
        read_chunk(store, chunk, ["image_id"])
    path.unlink()
    with pytest.raises(DamagedError, match=r"part-00000\.parquet is listed but missing"):
        read_chunk(store, chunk, ["image_id"])


class Failing:
    """A store whose disk fails."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def arrow(self) -> tuple[Any, str]:
        return self, "root"

    def open_input_file(self, path: str) -> Any:
        assert path == "root/scores/part-00000.parquet"
        raise self.error


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (OSError(5, "Input/output error"), False),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject"), False),
        (OSError("Couldn't deserialize thrift"), True),
    ],
)
def test_errors_of_disk_or_network_stay_what_they_are(error: OSError, is_damage: bool) -> None:
    failing: Any = Failing(error)
    with pytest.raises(DamagedError if is_damage else OSError) as raised:
        read_chunk(failing, Chunk(0, (Shard("scores/part-00000", 3),)), ["image_id"])
    assert (raised.value is error) == (not is_damage)


def test_a_page_that_was_changed_is_found(store: Store, tmp_path: Path) -> None:
    ids = [f"{number:08d}" for number in range(99)]
    path = tmp_path / "scores" / "part-00000.parquet"
    path.parent.mkdir()
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(scores(list(ids)), path, **options)
    path.write_bytes(path.read_bytes().replace(b"00000042", b"00000043", 1))
    with pytest.raises(DamagedError, match="no readable Parquet"):
        read_chunk(store, Chunk(0, (Shard("scores/part-00000", 99),)), ["image_id"])


def test_all_rows_are_ranked_by_image_id_emotion_after_emotion() -> None:
    parts = [scores(["d", "a"], ["fear", "awe"]), scores(["c", "b", "e"], ["fear", "awe", None])]
    found = id_keys(pa.concat_tables(parts))
    assert list(found) == ["id"]
    keys, rows = found["id"]
    assert keys.type == pa.large_string()
    assert keys.to_pylist() == ["d", "a", "c", "b", "e"]
    assert rows.dtype == np.uint32
    assert rows.tolist() == [4, 0, 2, 1, 3]  # no emotion, then fear, which comes first, then awe


def test_rows_without_an_image_id_are_refused() -> None:
    with pytest.raises(ValueError, match="2 score rows have no image_id"):
        id_keys(scores(["a", None, None]))


def test_score_keys_order_by_descending_score_then_by_image_id() -> None:
    values = np.array([0.5, -1.0, 0.0, 0.5, 2.0, -np.inf, np.inf, -0.25, 1e-30])
    ids = np.array([7, 1, 2, 3, (1 << 32) - 1, 5, 6, 0, 8])
    keys = score_keys(values, ids)
    assert keys.dtype == np.uint64
    wanted = sorted(range(len(values)), key=lambda row: (-values[row], ids[row]))
    assert np.argsort(keys).tolist() == wanted
    assert (keys & np.uint64(0xFFFFFFFF)).tolist() == ids.tolist()


def test_scores_that_are_one_float32_are_equal() -> None:
    keys = score_keys(np.array([0.1, np.float64(np.float32(0.1))]), np.array([1, 0]))
    assert keys[1] + 1 == keys[0]
