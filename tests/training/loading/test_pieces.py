from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.loading.shards import commit_rows, make_rows, numbered
from uniemo_ray.data.schema import ROW_GROUP
from uniemo_ray.store import shard_format
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.loading.feed import take_rows
from uniemo_ray.training.loading.pieces import ShardRows, read_columns, read_piece, shard_rows


def contents(data: ShardRows) -> list[str]:
    return read_columns(data, ["image_id"])["image_id"].to_pylist()


def test_large_shards_are_read_by_row_groups_and_small_ones_together(uri: str) -> None:
    store = open_store(uri)
    commit_rows(store, numbered(600), per_shard=600, prefix="large")
    commit_rows(store, numbered(30), per_shard=7, prefix="small")
    data = shard_rows([(store, "large"), (store, "small")], columns=["image_id"])
    assert [piece.rows for piece in data.pieces] == [256, 256, 88, 30]
    assert [len(piece.parts) for piece in data.pieces] == [1, 1, 1, 5]
    names = [row["image_id"] for row in numbered(600)]
    assert contents(data) == names + names[:30]
    assert data.rows == 630


def test_shards_of_another_writer_are_read_by_their_own_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_format, "PICTURES_PER_GROUP", 400)
    data = make_rows(open_store(str(tmp_path)), 1000, per_shard=1000)
    assert [piece.rows for piece in data.pieces] == [400, 400, 200]
    assert contents(data) == [row["image_id"] for row in numbered(1000)]


def test_rows_are_right_whatever_the_groups_of_the_file(tmp_path: Path) -> None:
    """A file whose groups are not those that its schema promises."""
    data = make_rows(open_store(str(tmp_path)), 600, per_shard=600)
    path = data.pieces[0].parts[0].path
    pq.write_table(pq.read_table(path), path, row_group_size=100)
    assert contents(data) == [row["image_id"] for row in numbered(600)]


def test_pictures_are_written_in_groups(tmp_path: Path) -> None:
    data = make_rows(open_store(str(tmp_path)), 600, per_shard=600)
    footer = pq.read_metadata(data.pieces[0].parts[0].path)
    assert footer.row_group(0).num_rows == shard_format.PICTURES_PER_GROUP == ROW_GROUP


def test_a_name_tells_rows_and_columns(tmp_path: Path) -> None:
    data = make_rows(open_store(str(tmp_path)), 600, per_shard=300)
    names = {piece.name(columns) for piece in data.pieces for columns in (["image"], ["image", "image_id"])}
    assert len(names) == 2 * len(data.pieces) == 8


def test_missing_columns_and_rows_are_named(tmp_path: Path) -> None:
    data = make_rows(open_store(str(tmp_path)), 20, per_shard=20)
    with pytest.raises(ValueError, match="has no column 'latent'"):
        read_piece(data.pieces[0], ["latent"], data.filesystem)
    path = data.pieces[0].parts[0].path
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    with pytest.raises(ValueError, match="has 5 rows, less than the 20"):
        read_piece(data.pieces[0], ["image"], data.filesystem)


def test_repeated_rows_have_ids_of_their_own(tmp_path: Path) -> None:
    data = make_rows(open_store(str(tmp_path)), 10, per_shard=5)
    repeats = np.array([1, 3, 1, 1, 1, 2, 1, 1, 1, 1], dtype=np.uint16)
    sampled = replace(data, repeats=repeats)
    assert sampled.rows == repeats.sum() == 13
    table: pa.Table = read_piece(sampled.pieces[0], sampled.columns, sampled.filesystem)
    places = np.stack([np.zeros(13, np.int64), np.arange(13)], axis=1)
    rows = take_rows(sampled, {0: table}, places)
    expected = [f"i{i:04d}" + (f"~{copy}" if copy else "") for i in range(10) for copy in range(repeats[i])]
    assert rows["image_id"].tolist() == expected
    assert [int(image) for image in rows["image"]] == [int(name[1:5]) for name in expected]
