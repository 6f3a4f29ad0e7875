"""The filter where the scores lie: on a real S3 server as on disk, and on damaged shards."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.config import FilterConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.rank_filter import filter_shards
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard, read_shards

SHARDS, ROWS = 5, 40
T = TypeVar("T")
R = TypeVar("R")


def put_scores(store: Store) -> None:
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        rows = [
            {
                "image_id": f"i{shard}-{row}",
                "emotion": EMOTIONS[row % 8],
                "emo_score": float(rng.integers(9)) / 8,
                "sem_score": float(rng.random()),
            }
            for row in range(ROWS)
        ]
        commit_shard(
            store, f"scores/part-{shard:05d}", pa.Table.from_pylist(rows, schema=SCORES), plan_hash="p"
        )


@pytest.mark.integration
def test_s3_and_disk_agree(s3_uri: str, tmp_path: Path) -> None:
    verdicts = []
    for uri in (s3_uri, str(tmp_path)):
        store = open_store(uri)
        put_scores(store.sub("a"))
        summary = filter_shards(store.sub("a"), store.sub("b"), config=FilterConfig(), rows_per_task=60)
        assert summary == filter_shards(store.sub("a"), store.sub("b"), config=FilterConfig())
        verdicts.append((summary, read_shards(store.sub("b"), "kept/")))
    assert verdicts[0][0] == verdicts[1][0]
    assert verdicts[0][1].equals(verdicts[1][1])


def test_a_flipped_bit_of_a_score_is_noticed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    put_scores(store)
    key = "scores/part-00002.parquet"
    data = store.read_bytes(key)
    columns = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    column = next(
        found
        for found in map(columns.column, range(columns.num_columns))
        if found.path_in_schema == "sem_score"
    )
    start = column.dictionary_page_offset or column.data_page_offset
    for part in (0.4, 0.5, 0.6):  # random bits, which no compression changes
        at = start + int(part * column.total_compressed_size)
        store.write_bytes(key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(StoreError, match=r"part-00002\.parquet is no readable Parquet"):
            filter_shards(store, store.sub(f"flipped-{at}"), config=FilterConfig())


def test_a_missing_shard_is_named_and_a_failing_disk_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    put_scores(store)
    data = store.read_bytes("scores/part-00003.parquet")
    store.delete("scores/part-00003.parquet")
    with pytest.raises(StoreError, match=r"part-00003\.parquet is listed but missing: uniemo store repair"):
        filter_shards(store, store.sub("a"), config=FilterConfig())
    store.write_bytes("scores/part-00003.parquet", data)

    def fail(*_: object, **__: object) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject")

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        filter_shards(store, store.sub("b"), config=FilterConfig())


def test_verdicts_that_a_followed_driver_recorded_are_judged_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "scores"))
    put_scores(store)
    run = RunFolder.open(str(tmp_path / "run"), {})

    def in_turn_but_one_is_lost(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        found = [work(item) for item in items]
        key = "artefacts/filter/manifest/kept/part-00001.json"
        if run.store.exists(key) and not lost:
            lost.append(key)
            run.store.delete(key)  # as if it were of an older lease: it does not count
        return found

    lost: list[str] = []
    with run.locked():
        target = run.fenced_store.sub("artefacts/filter")
        summary = filter_shards(store, target, config=FilterConfig(), run=in_turn_but_one_is_lost)
        assert len(lost) == 1
        assert read_shards(target, "kept/").num_rows == SHARDS * ROWS
    expected = filter_shards(store, open_store(str(tmp_path / "b")), config=FilterConfig())
    assert summary == expected
