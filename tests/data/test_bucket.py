"""A data set in a bucket is read like the same set in a folder. The store here is one on a disk."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data import bucket
from uniemo_ray.data.emosketch.write import write_sketch
from uniemo_ray.data.folder import DataFolder, FolderError
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.samples import Entry, resolve_image
from uniemo_ray.data.shards import FileStamps, PlannedShard
from uniemo_ray.store.filesystem import open_store

ROOT = "s3://bucket/set"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is in the bucket's folder."""
    folder = tmp_path / "stored"
    monkeypatch.setattr(bucket, "open_bucket", lambda root: open_store(str(folder)))
    bucket.outline.cache_clear()
    yield folder
    bucket.outline.cache_clear()


def opened(root: str | Path, kind: str) -> DataFolder:
    return open_folder(root, DataConfig(kind=kind, root=str(root)))


def make(kind: str, root: Path) -> None:
    if kind == "emoset":
        write_sketch(root, train=24, val=8, test=8, seed=0, size_px=32)
    elif kind == "fi":
        layouts.fi(root)
    elif kind == "emotionroi":
        layouts.emotionroi(root)
    else:
        layouts.twitter2(root)


@pytest.mark.parametrize("kind", ["emoset", "fi", "emotionroi", "twitter2"])
def test_every_reader_finds_the_same(stored: Path, kind: str) -> None:
    make(kind, stored)
    here, there = opened(stored, kind), opened(ROOT, kind)
    for split in ("train", "val", "test"):
        assert there.entries(split) == here.entries(split)
        local, remote = FileStamps(stored), FileStamps(there.root)
        assert remote.describe(there.entries(split)) == local.describe(here.entries(split))
    assert (there.names, list(there.notes)) == (here.names, list(here.notes))
    assert there.root != stored


@pytest.mark.parametrize("kind", ["emoset", "twitter2"])
def test_samples_are_the_same(stored: Path, kind: str) -> None:
    make(kind, stored)
    found = []
    for root in (stored, ROOT):
        folder = opened(root, kind)
        entries = [*folder.entries("val"), Entry("gone", folder.space.labels[0], "image/gone.jpg", None)]
        entries.append(Entry("out", folder.space.labels[0], "../out.jpg", None))
        reader = SampleReader(root, folder.names, folder.space.labels, "here", 10_000)
        found.append(reader.read(PlannedShard("val", 0, entries).table()))
    assert found[0].equals(found[1])
    assert found[1]["reason"].to_pylist()[-2:] == ["image_missing", "path_invalid"]


def test_pictures_take_no_space_and_many_annotations_are_not_fetched(stored: Path) -> None:
    make("emoset", stored)
    bulk = stored / "annotation" / "bulk"
    bulk.mkdir()
    for number in range(bucket.MOST_TABLES + 1):
        (bulk / f"{number}.json").write_text(json.dumps({"number": number}))
    found = bucket.outline(ROOT)
    picture = next(stored.rglob("*.png"))
    mine = found / picture.relative_to(stored)
    assert mine.stat().st_size == picture.stat().st_size
    assert mine.stat().st_mtime_ns == picture.stat().st_mtime_ns
    assert mine.stat().st_blocks == 0
    assert not any((found / "annotation/bulk/7.json").read_bytes())
    assert (found / "info.json").read_bytes() == (stored / "info.json").read_bytes()


def test_endings_are_found_in_the_outline(stored: Path) -> None:
    make("emoset", stored)
    entry = opened(ROOT, "emoset").entries("val")[0]
    bare = entry._replace(image=entry.image.rpartition(".")[0])
    assert resolve_image(bucket.outline(ROOT), bare) == entry.image


def test_only_the_files_of_a_shard_are_fetched_and_go_again(stored: Path) -> None:
    make("fi", stored)
    entries = opened(ROOT, "fi").entries("test")[:2]
    with bucket.fetched(ROOT, entries) as folder:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert files == sorted(entry.image for entry in entries)
    assert not folder.exists()


def test_faults_name_the_bucket(stored: Path) -> None:
    make("emoset", stored)
    (stored / "val.json").unlink()
    with pytest.raises(FolderError, match=r"^s3://bucket/set/val\.json: missing"):
        opened(ROOT, "emoset")
    shutil.rmtree(stored)
    bucket.outline.cache_clear()
    with pytest.raises(FolderError, match="s3://bucket/set: no files there"):
        opened(ROOT, "emoset")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("gs://bucket/set", r"is read from a folder or from s3://bucket/folder; mount other storage"),
        ("s3://bucket", r"name the data set's folder in the bucket, as in s3://bucket/EmoSet"),
        ("s3://B_D/set", "expected s3://bucket/prefix"),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(root: str, words: str) -> None:
    with pytest.raises(FolderError, match=words):
        bucket.open_bucket(root)


def test_names_that_no_disk_can_hold_are_left_out(stored: Path) -> None:
    make("fi", stored)
    assert [bucket._is_plain(name) for name in ("a/b.jpg", "a//b.jpg", "../b", "x" * 256, "a/\0")] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert os.listdir(bucket.outline(ROOT))
