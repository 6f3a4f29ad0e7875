"""Columns of shards: what is read, in which order, and what is said of damage."""

from pathlib import Path

import pyarrow as pa
import pytest

from uniemo_ray.store.columns import READERS, iterate_columns
from uniemo_ray.store.errors import DamagedError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

SHARDS = 3 * READERS + 1


def write(folder: Path) -> None:
    for number in range(SHARDS):
        table = pa.table({"image_id": [f"{number}-{row}" for row in range(3)], "image": [b"x" * 50_000] * 3})
        commit_shard(open_store(str(folder)), f"images/part-{number:05d}", table, plan_hash="p")


def test_shards_come_in_order_with_the_wanted_columns_alone(tmp_path: Path) -> None:
    write(tmp_path)
    found = list(iterate_columns(open_store(str(tmp_path)), "images/", ["image_id"]))
    assert [table.column_names for table in found] == [["image_id"]] * SHARDS
    assert [table["image_id"][0].as_py() for table in found] == [f"{number}-0" for number in range(SHARDS)]


def test_a_torn_shard_a_lost_one_and_none_at_all_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "images" / "part-00004.parquet"
    path.write_bytes(path.read_bytes()[:100])
    store = open_store(str(tmp_path))
    with pytest.raises(DamagedError, match=r"part-00004\.parquet is no readable Parquet"):
        list(iterate_columns(store, "images/", ["image_id"]))
    path.unlink()
    with pytest.raises(DamagedError, match=r"part-00004\.parquet is listed but missing"):
        list(iterate_columns(store, "images/", ["image_id"]))
    with pytest.raises(FileNotFoundError, match="no committed shards other/"):
        list(iterate_columns(store, "other/", ["image_id"]))
