import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from uniemo_ray.data.schema import SAMPLES, read_notes, write_table

ROW = {
    "image_id": "awe_1",
    "image": b"\x00\xff",
    "emotion": "awe",
    "scene": None,
    "objects": [],
    "split": "train",
    "source": "here",
    "sha256": "ab",
    "width": 3,
    "height": 2,
    "brightness": None,
    "colorfulness": 0.25,
}


@pytest.fixture
def table() -> pa.Table:
    return pa.Table.from_pylist([ROW], schema=SAMPLES)


def test_what_is_written_is_read_with_schema_and_notes(tmp_path: Path, table: pa.Table) -> None:
    path = str(tmp_path / "deep" / "part-00000.parquet")
    size = write_table(table, path, notes={"made.of": "ä plan"})
    back = pq.read_table(path)
    assert back.to_pylist() == [ROW]
    assert back.schema.remove_metadata().equals(SAMPLES)
    assert size == os.path.getsize(path)
    assert read_notes(path) == {"made.of": "ä plan"}


def test_same_rows_give_the_same_bytes(tmp_path: Path, table: pa.Table) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file in files:
        write_table(table, str(file), notes={"k": "v"})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "part-00000.parquet"
    write_table(table, str(path), notes={"version": "old"})
    blocked = tmp_path / "blocked"
    (blocked / "part-00000.parquet").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(IsADirectoryError):
        write_table(table, str(blocked / "part-00000.parquet"))
    assert [item.name for item in blocked.iterdir()] == ["part-00000.parquet"]
    assert read_notes(str(path)) == {"version": "old"}


def test_no_notes_without_a_whole_file(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "part.parquet"
    assert read_notes(str(path)) is None
    write_table(table, str(path))
    path.write_bytes(path.read_bytes()[:-20])
    assert read_notes(str(path)) is None


def test_folder_of_a_file_system_is_a_local_disk_too(tmp_path: Path, table: pa.Table) -> None:
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    write_table(table, "x/y.parquet", filesystem=below, notes={"k": "v"})
    assert (tmp_path / "x" / "y.parquet").is_file()
    assert read_notes("x/y.parquet", filesystem=below) == {"k": "v"}


def test_a_reader_never_sees_a_half_written_file(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "part-00000.parquet"
    write_table(table, str(path), notes={"version": "old"})
    old = path.read_bytes()
    with path.open("rb") as reader:  # opened before the second write, reads after it
        write_table(table, str(path), notes={"version": "a new and longer one"})
        assert reader.read() == old
    assert read_notes(str(path)) == {"version": "a new and longer one"}
