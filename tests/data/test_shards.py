"""The plan of shards: which entries go into which, and what makes another shard of it."""

import json
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.shards import (
    PLAN,
    FileStamps,
    PlannedShard,
    ShardLimits,
    plan_shards,
    read_entries,
    shard_order,
)

LIMITS = ShardLimits(4, 1 << 30)


def open_kind(root: Path, kind: str) -> DataFolder:
    return open_folder(root, DataConfig(kind=kind, root=str(root)))


def reader_of(folder: DataFolder) -> SampleReader:
    return SampleReader(folder.root, folder.names, folder.space.labels, "here", 10_000)


@pytest.mark.parametrize("annotation", ["annotation/awe_1.json", None])
def test_entries_come_back_from_a_plan(annotation: str | None) -> None:
    shard = PlannedShard("val", 7, [Entry("awe_1", "awe", "image/ä.jpg", annotation)])
    assert shard.name == "val/part-00007"
    assert shard.table().schema.equals(PLAN)
    assert read_entries(shard.table()) == shard.entries
    assert shard.table()["split"].to_pylist() == ["val"]


def test_a_changed_file_is_noticed_without_annotations(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    reader, splits = reader_of(folder), ("train", "val", "test")

    def fingerprints() -> list[str]:
        return [reader.fingerprint(split, folder.entries(split)) for split in splits]

    before = fingerprints()
    assert fingerprints() == before
    layouts.put(folder.root / folder.entries("val")[0].image, "PNG")
    assert [one == other for one, other in zip(fingerprints(), before, strict=True)] == [True, False, True]


def test_shards_with_other_labels_are_other_shards(tmp_path: Path) -> None:
    folder = open_kind(layouts.emotionroi(tmp_path / "set", train=4, test=1), "emotionroi")
    plain, entries = reader_of(folder), folder.entries("test")
    relabelled = replace(plain, valence_of=folder.space)
    assert plain.fingerprint("test", entries) != relabelled.fingerprint("test", entries)


def test_a_shard_is_full_by_rows_or_by_bytes(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    entries = sorted(folder.entries("train"), key=lambda entry: shard_order(entry.image_id))
    sizes = {entry.image_id: (folder.root / entry.image).stat().st_size for entry in entries}

    def plan(limits: ShardLimits) -> list[list[Entry]]:
        shards = plan_shards(folder.entries("train"), "train", root=folder.root, limits=limits)
        assert [entry for shard in shards for entry in shard.entries] == entries
        return [shard.entries for shard in shards]

    by_rows = plan(ShardLimits(4, 1 << 30))
    assert {len(shard) for shard in by_rows[:-1]} == {4}
    assert {len(shard) for shard in plan(ShardLimits(50, 1))} == {1}
    limit = sum(sizes[entry.image_id] for entry in entries[:3])
    by_size = plan(ShardLimits(50, limit))
    assert by_size[0] == entries[:3]
    assert all(sum(sizes[e.image_id] for e in shard) <= limit for shard in by_size if len(shard) > 1)


def test_images_named_without_ending_count_by_their_size_too(emoset: Path) -> None:
    """The older release's lists name an id instead of a file."""
    path = emoset / "train.json"
    old = [[emotion, Path(image).stem, note] for emotion, image, note in json.loads(path.read_text())]
    path.write_text(json.dumps(old))
    entries = open_kind(emoset, "emoset").entries("train")
    assert not any(Path(entry.image).suffix for entry in entries)
    shards = plan_shards(entries, "train", root=emoset, limits=ShardLimits(50, 1))
    assert [len(shard.entries) for shard in shards] == [1] * len(entries)


def test_each_file_is_looked_at_once_for_the_plan_and_its_fingerprints(
    emoset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network an answer takes a millisecond: many are asked for at a time, and none twice."""
    folder = open_kind(emoset, "emoset")
    entries, reader = folder.entries("train"), reader_of(folder)
    plain = [reader.fingerprint("train", entries), plan_shards(entries, "train", root=emoset, limits=LIMITS)]
    asked: Counter[Path] = Counter()
    threads: set[int] = set()
    stat = Path.stat

    def counted(path: Path, **options: bool) -> os.stat_result:
        asked[path] += 1
        threads.add(threading.get_ident())
        time.sleep(0.002)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", counted)
    monkeypatch.setattr("uniemo_ray.data.shards._FILES_PER_TASK", 2)
    stamps = FileStamps(folder.root)
    planned = plan_shards(entries, "train", root=emoset, limits=LIMITS, stamps=stamps)
    assert [reader.fingerprint("train", entries, stamps=stamps), planned] == plain
    assert set(asked.values()) == {1}
    assert len(asked) >= len(entries)
    assert len(threads) > 1
