"""Shards without Ray: what is written, counted and skipped."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.data.shards import ShardFile, ShardLimits, ShardWriter, plan_shards, shard_order


def open_kind(root: Path, kind: str) -> DataFolder:
    return open_folder(root, DataConfig(kind=kind, root=str(root)))


def writer_of(folder: DataFolder, out: Path) -> ShardWriter:
    labels = folder.space.labels
    return ShardWriter(folder.root, str(out), fs.LocalFileSystem(), folder.names, labels, "here", 10_000)


def write_all(folder: DataFolder, out: Path) -> list[dict[str, Any]]:
    plan = partial(plan_shards, root=folder.root, limits=ShardLimits(50, 1 << 30))
    specs = [spec for split in ("train", "val", "test") for spec in plan(folder.entries(split), split)]
    # As they travel to a worker and back.
    return [json.loads(json.dumps(writer_of(folder, out).write(json.loads(json.dumps(s))))) for s in specs]


@pytest.mark.parametrize("kind", ["emotionroi", "twitter2"])
def test_other_label_spaces_reach_the_shards(tmp_path: Path, kind: str) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    {"emotionroi": layouts.emotionroi, "twitter2": layouts.twitter2}[kind](root)
    folder = open_kind(root, kind)
    summaries = write_all(folder, out)
    table = pq.read_table(out, schema=SAMPLES)
    assert not any(summary["rejected"] for summary in summaries)
    assert set(table["emotion"].to_pylist()) == set(folder.space.labels)
    assert table["scene"].null_count == table["brightness"].null_count == len(table)
    assert set(map(tuple, table["objects"].to_pylist())) == {()}
    for row in table.to_pylist():
        entry = next(e for e in folder.entries(row["split"]) if e.image_id == row["image_id"])
        assert row["image"] == (root / entry.image).read_bytes()
        assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()


def test_a_name_too_long_for_any_file_stops_no_ingest(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    good = folder.entries("train")[0]
    entries = [good, good._replace(image_id="long", image="x" * 300)]
    (spec,) = plan_shards(entries, "train", root=folder.root, limits=ShardLimits(50, 1 << 30))
    summary = writer_of(folder, tmp_path / "out").write(spec)
    assert summary["rejected"]
    assert pq.read_table(tmp_path / "out", schema=SAMPLES).num_rows == 1


def test_files_are_measured_when_written_and_when_skipped(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    first, again = (write_all(folder, tmp_path / "out") for _ in range(2))
    assert [summary["is_skipped"] for summary in first + again] == [False] * 3 + [True] * 3
    for written, found in zip(first, again, strict=True):
        file = ShardFile(*written["file"])
        data = (tmp_path / "out" / f"{file.name}.parquet").read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert ShardFile(*found["file"]) == file._replace(seconds=0.0)


def test_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    root = layouts.twitter2(tmp_path / "set")
    (root / "religion/2.jpg").write_bytes(b"no picture")
    (root / "religion/4.jpg").write_bytes(b"")
    (root / "religion/5.jpg").write_bytes((root / "religion/5.jpg").read_bytes()[:-100])
    summaries = write_all(open_kind(root, "twitter2"), tmp_path / "out")
    reasons = sorted(row[2] for summary in summaries for row in summary["rejected"])
    assert reasons == ["image_corrupt", "image_corrupt", "image_truncated"]
    assert sum(summary["rows"] for summary in summaries) == 17


def test_a_changed_file_is_noticed_without_annotations(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    write_all(folder, tmp_path / "out")
    changed = folder.entries("val")[0]
    layouts.put(folder.root / changed.image, "PNG")
    assert [s["is_skipped"] for s in write_all(folder, tmp_path / "out")] == [True, False, True]


def test_a_shard_is_full_by_rows_or_by_bytes(tmp_path: Path) -> None:
    folder = open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")
    entries = sorted(folder.entries("train"), key=lambda entry: shard_order(entry.image_id))
    sizes = {entry.image_id: (folder.root / entry.image).stat().st_size for entry in entries}

    def plan(limits: ShardLimits) -> list[list[Entry]]:
        shards = plan_shards(folder.entries("train"), "train", root=folder.root, limits=limits)
        assert [entry for shard in shards for entry in shard["entries"]] == entries
        return [shard["entries"] for shard in shards]

    by_rows = plan(ShardLimits(4, 1 << 30))
    assert {len(shard) for shard in by_rows[:-1]} == {4}
    assert {len(shard) for shard in plan(ShardLimits(50, 1))} == {1}
    limit = sum(sizes[entry.image_id] for entry in entries[:3])
    by_size = plan(ShardLimits(50, limit))
    assert by_size[0] == entries[:3]
    assert all(sum(sizes[e.image_id] for e in shard) <= limit for shard in by_size if len(shard) > 1)


def test_labels_become_their_valence_and_surprise_is_refused_by_name(tmp_path: Path) -> None:
    folder = open_kind(layouts.emotionroi(tmp_path / "set", train=4, test=1), "emotionroi")
    plain = writer_of(folder, tmp_path / "out")
    writer = replace(plain, valence_of=folder.space)
    entries = folder.entries("test")
    summary = writer.write({"split": "test", "name": "part-00000.parquet", "entries": entries})
    assert summary["emotions"] == {"negative": 4, "positive": 1}
    ((image_id, _, reason, detail, split),) = summary["rejected"]
    assert (image_id, reason, split) == ("surprise/5.jpg", "unknown_label", "test")
    assert detail == "surprise is neither positive nor negative"
    # Shards with other labels are other shards.
    assert plain.fingerprint("test", entries) != writer.fingerprint("test", entries)


def test_images_named_without_ending_count_by_their_size_too(emoset: Path) -> None:
    """The older release's lists name an id instead of a file."""
    path = emoset / "train.json"
    old = [[emotion, Path(image).stem, note] for emotion, image, note in json.loads(path.read_text())]
    path.write_text(json.dumps(old))
    entries = open_kind(emoset, "emoset").entries("train")
    assert not any(Path(entry.image).suffix for entry in entries)
    shards = plan_shards(entries, "train", root=emoset, limits=ShardLimits(50, 1))
    assert [len(shard["entries"]) for shard in shards] == [1] * len(entries)
