"""Samples without Ray: what an actor makes of a plan, and the shards that are committed of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import layouts
from tests.data.test_shards import open_kind, reader_of
from uniemo_ray.data import sample_reader
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.sample_reader import READ, SampleReader
from uniemo_ray.data.sample_shards import SamplesFormat, ShardSummary, read_summary
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.data.shards import PlannedShard, ShardLimits, plan_shards
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import ShardEntry, commit_shard

FORM = SamplesFormat()


def plan(folder: DataFolder, *, rows: int = 50) -> Iterator[PlannedShard]:
    for split in ("train", "val", "test"):
        limits = ShardLimits(rows, 1 << 30)
        yield from plan_shards(folder.entries(split), split, root=folder.root, limits=limits)


def finish(reader: SampleReader, shard: PlannedShard) -> pa.Table:
    return FORM.finish(reader.read(shard.table()), f"samples/{shard.name}")


def commit(reader: SampleReader, shard: PlannedShard, store: Store) -> ShardEntry:
    digest = reader.fingerprint(shard.split, shard.entries)
    return commit_shard(store, shard.name, finish(reader, shard), plan_hash=digest, form=FORM)


def summaries(folder: DataFolder) -> list[ShardSummary]:
    return [read_summary(finish(reader_of(folder), shard).schema) for shard in plan(folder)]


@pytest.fixture
def twitter(tmp_path: Path) -> DataFolder:
    return open_kind(layouts.twitter2(tmp_path / "set"), "twitter2")


@pytest.mark.parametrize("kind", ["emotionroi", "twitter2"])
def test_other_label_spaces_reach_the_shards(tmp_path: Path, kind: str) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    {"emotionroi": layouts.emotionroi, "twitter2": layouts.twitter2}[kind](root)
    folder = open_kind(root, kind)
    entries = [commit(reader_of(folder), shard, open_store(str(out))) for shard in plan(folder)]
    assert not any(entry.failed for entry in entries)
    table = pa.concat_tables([pq.read_table(out / entry.key, schema=SAMPLES) for entry in entries])
    assert set(table["emotion"].to_pylist()) == set(folder.space.labels)
    assert table["scene"].null_count == table["brightness"].null_count == len(table)
    assert set(map(tuple, table["objects"].to_pylist())) == {()}
    for row in table.to_pylist():
        entry = next(e for e in folder.entries(row["split"]) if e.image_id == row["image_id"])
        assert row["image"] == (root / entry.image).read_bytes()
        assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()


def test_a_name_too_long_for_any_file_stops_no_ingest(twitter: DataFolder) -> None:
    good = twitter.entries("train")[0]
    shard = PlannedShard("train", 0, [good, good._replace(image_id="long", image="x" * 300)])
    table = finish(reader_of(twitter), shard)
    assert table["image_id"].to_pylist() == [good.image_id]
    assert [item.image_id for item in read_summary(table.schema).rejected] == ["long"]


def test_one_bad_file_stops_nothing(twitter: DataFolder) -> None:
    root = twitter.root
    (root / "religion/2.jpg").write_bytes(b"no picture")
    (root / "religion/4.jpg").write_bytes(b"")
    (root / "religion/5.jpg").write_bytes((root / "religion/5.jpg").read_bytes()[:-100])
    found = summaries(open_kind(root, "twitter2"))
    reasons = sorted(item.reason for summary in found for item in summary.rejected)
    assert reasons == ["image_corrupt", "image_corrupt", "image_truncated"]
    assert sum(summary.rows for summary in found) == 17


def test_labels_become_their_valence_and_surprise_is_refused_by_name(tmp_path: Path) -> None:
    folder = open_kind(layouts.emotionroi(tmp_path / "set", train=4, test=1), "emotionroi")
    reader = replace(reader_of(folder), valence_of=folder.space)
    table = finish(reader, PlannedShard("test", 0, folder.entries("test")))
    summary = read_summary(table.schema)
    assert summary.emotions == {"negative": 4, "positive": 1}
    (item,) = summary.rejected
    assert (item.image_id, item.reason, item.split) == ("surprise/5.jpg", "unknown_label", "test")
    assert item.detail == "surprise is neither positive nor negative"


def test_an_exception_rejects_its_picture_alone(twitter: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (shard, *_) = plan(twitter)
    bad, read_sample = shard.entries[1], sample_reader.read_sample

    def read(root: Path, entry: Entry, **options: object) -> object:
        if entry == bad:
            raise RuntimeError("decoder\nbroke at \ud800")
        return read_sample(root, entry, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sample_reader, "read_sample", read)
    rows = reader_of(twitter).read(shard.table())
    assert rows.schema.equals(READ)
    table = FORM.finish(rows, f"samples/{shard.name}")
    assert table.num_rows == len(shard.entries) - 1
    (item,) = read_summary(table.schema).rejected
    assert item == (bad.image_id, bad.image, "RuntimeError", "decoder broke at ?", "train")


def test_a_failing_disk_is_no_fault_of_the_picture(
    twitter: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sample_reader, "read_sample", read)
    with pytest.raises(OSError, match="Input/output"):
        reader_of(twitter).read(next(plan(twitter)).table())


def test_rejected_rows_are_no_samples_but_are_counted(twitter: DataFolder, tmp_path: Path) -> None:
    reader, shard = reader_of(twitter), next(plan(twitter))
    table = shard.table()
    rows = pa.concat_tables(
        [reader.read(table.slice(1)), reader.reject(table.slice(0, 1), "killed 2 processes")]
    )
    store, digest = open_store(str(tmp_path / "out")), reader.fingerprint(shard.split, shard.entries)
    made = FORM.finish(rows, f"samples/{shard.name}")
    entry = commit_shard(store, "a", made, plan_hash=digest, form=FORM)
    assert (entry.rows, entry.failed) == (table.num_rows - 1, {"killed 2 processes": 1})
    assert pq.read_table(tmp_path / "out/a.parquet").schema.remove_metadata().equals(SAMPLES)
    # another attempt had no such bad luck: the shard that was listed first counts
    whole = FORM.finish(reader.read(table), f"samples/{shard.name}")
    assert commit_shard(store, "a", whole, plan_hash=digest, form=FORM) == entry
    fewer = FORM.finish(reader.read(table.slice(1)), f"samples/{shard.name}")
    with pytest.raises(ValueError, match="is committed with"):
        commit_shard(store, "a", fewer, plan_hash=digest, form=FORM)


def test_bytes_do_not_depend_on_how_the_rows_were_made() -> None:
    facts = {"emotion": "awe", "objects": [], "split": "train", "source": "s", "sha256": "x", "width": 1}
    image, count = bytes(20_000), 300  # so many bytes that a file has several pages
    rows = pa.Table.from_pylist(
        [{**facts, "image_id": f"i{n}", "image": image, "height": n} for n in range(count)]
        + [{"image_id": "bad", "path": "bad.jpg", "reason": "image_corrupt", "detail": "?"}],
        schema=READ,
    )
    apart = pa.concat_tables([rows.slice(n, 1) for n in range(rows.num_rows)])
    data = {FORM.encode(FORM.finish(table, "s/train/part-00000"), "p") for table in (rows, apart)}
    assert len(data) == 1


class TestFoundFiles:
    """What lies under a shard's name and is not listed."""

    @pytest.fixture
    def data(self, twitter: DataFolder) -> bytes:
        return FORM.encode(finish(reader_of(twitter), next(plan(twitter))), "p")

    def test_a_whole_one_is_taken(self, data: bytes, twitter: DataFolder) -> None:
        table, digest = FORM.decode(data)
        made = finish(reader_of(twitter), next(plan(twitter)))
        assert (table.to_pylist(), digest) == (made.to_pylist(), "p")
        assert read_summary(table.schema) == read_summary(made.schema)

    def test_a_flipped_bit_in_an_image_is_noticed(self, data: bytes) -> None:
        image = pq.read_table(pa.BufferReader(data))["image"][3].as_py()
        place = data.index(image) + len(image) // 2
        broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ValueError, match="an image with another sha256"):
            FORM.decode(broken)

    @pytest.mark.parametrize("cut", [20, 4000])
    def test_a_cut_one_is_noticed(self, data: bytes, cut: int) -> None:
        with pytest.raises((ValueError, OSError)):
            FORM.decode(data[:-cut])

    def test_a_file_of_something_else_is_noticed(self) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": [1]}), sink)
        with pytest.raises(ValueError, match="no canonical shard"):
            FORM.decode(sink.getvalue().to_pybytes())

    def test_a_summary_of_other_rows_is_noticed(self, data: bytes) -> None:
        table = FORM.decode(data).table
        summary = json.loads(table.schema.metadata[b"uniemo.summary"])
        wrong = {**table.schema.metadata, b"uniemo.summary": json.dumps({**summary, "rows": 99})}
        with pytest.raises(ValueError, match="14 rows instead of 99"):
            FORM.decode(FORM.encode(table.replace_schema_metadata(wrong), "p"))
