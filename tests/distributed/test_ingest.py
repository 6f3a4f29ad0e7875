import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.data.emoset import EmoSetFolder, FolderError
from uniemo_ray.data.emosketch.folder import SketchSettings
from uniemo_ray.data.emosketch.write import write_sketch
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.data.shards import ShardLimits, plan_shards, shard_order
from uniemo_ray.distributed import datasets
from uniemo_ray.distributed.ingest import IngestResult, ingest_folder
from uniemo_ray.distributed.shards.actors.samples import SampleActor
from uniemo_ray.distributed.sketch import SketchFolder, draw_here
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.store.errors import DamagedError, SupersededError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.lease import Lease
from uniemo_ray.store.shards import committed

SIZES = {"train": 60, "val": 8, "test": 10}
LIMITS = ShardLimits(25, 1 << 30)


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sketch(tmp_path_factory.mktemp("ingest") / "set", **SIZES, seed=0, size_px=32)


def shards(out: Path) -> dict[str, bytes]:
    samples = out / "samples"
    return {str(p.relative_to(samples)): p.read_bytes() for p in sorted(samples.rglob("*")) if p.is_file()}


def ingest(root: Path, out: Path, **options: Any) -> IngestResult:
    return ingest_folder(root, open_store(str(out)), **{"source": "s", "limits": LIMITS, **options})


class Deadly(SampleActor):
    """An actor with a decoder that one picture ends."""

    def __init__(self, reader: SampleReader, prepare: object, victim: str, device: str) -> None:
        super().__init__(reader, None, device)
        self.victim = victim

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.victim in table["image_id"].to_pylist():
            os._exit(1)
        return super().__call__(table)


class Raising(Deadly):
    """An actor with a decoder that raises at one picture."""

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.victim in table["image_id"].to_pylist():
            raise RuntimeError("decoder broke")
        return SampleActor.__call__(self, table)


def test_plan_is_stable_and_mixed() -> None:
    entries = [Entry(f"{e}_{i}", e, "i", "a") for e in EMOTIONS for i in range(40)]
    limits = ShardLimits(64, 1 << 30)
    plan = plan_shards(entries, "train", root=Path("set"), limits=limits)
    assert plan == plan_shards(entries[::-1], "train", root=Path("set"), limits=limits)
    assert [shard.name for shard in plan] == [f"train/part-{i:05d}" for i in range(5)]
    rows = [entry for shard in plan for entry in shard.entries]
    assert sorted(rows) == sorted(entries)
    assert rows != entries
    assert [shard_order(e.image_id) for e in rows] == sorted(shard_order(e.image_id) for e in rows)
    for shard in plan:
        assert len({entry.emotion for entry in shard.entries}) == 8


def test_structural_faults_come_before_ray(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder"):
        ingest_folder(tmp_path / "nowhere", open_store(str(tmp_path / "out")), source="x")
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestThroughRay:
    def test_shards_hold_the_folder(self, sketch: Path, tmp_path: Path) -> None:
        result = ingest(sketch, tmp_path, source="emosketch")
        assert result.counts == SIZES
        assert result.rejected == ()
        assert result.skipped == 0
        assert (len(result.scenes), len(result.objects)) == (16, 24)
        names = [f"train/part-{i:05d}.parquet" for i in range(3)]
        assert sorted(shards(tmp_path)) == sorted(
            [*names, "val/part-00000.parquet", "test/part-00000.parquet"]
        )
        rows = [
            row
            for name in names
            for row in pq.read_table(tmp_path / "samples" / name, schema=SAMPLES).to_pylist()
        ]
        by_id = {entry.image_id: entry for entry in EmoSetFolder(sketch).entries("train")}
        assert {row["image_id"] for row in rows} == set(by_id)
        assert len(rows) == 60
        assert [row["image_id"] for row in rows] == sorted(by_id, key=shard_order)
        for row in rows:
            entry = by_id[row["image_id"]]
            facts = json.loads((sketch / entry.annotation).read_text())
            assert row["image"] == (sketch / entry.image).read_bytes()
            assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
            assert (row["emotion"], row["scene"], row["objects"]) == (
                entry.emotion,
                facts["scene"],
                facts["object"],
            )
            assert row["brightness"] == pytest.approx(facts["brightness"])
            assert (row["split"], row["source"], row["width"]) == ("train", "emosketch", 32)

    def test_a_machine_without_the_folder_draws_it(self, sketch: Path, tmp_path: Path) -> None:
        away = SketchFolder(tmp_path / "set", SketchSettings(**SIZES, seed=0, size_px=32))
        away.draw(draw_here)

        def read_then_lose(root: str | Path) -> EmoSetFolder:
            folder = EmoSetFolder(root)
            for split in ("train", "val", "test"):
                folder.entries(split)
            shutil.rmtree(root)
            return folder

        ingest(away.root, tmp_path / "drawn", reader=read_then_lose, prepare=away.draw)
        ingest(sketch, tmp_path / "there")
        for name in shards(tmp_path / "there"):
            drawn, there = (pq.read_table(tmp_path / out / "samples" / name) for out in ("drawn", "there"))
            assert drawn.to_pylist() == there.to_pylist()

    def test_rerun_skips_what_is_done_and_makes_what_is_not(self, sketch: Path, tmp_path: Path) -> None:
        first = ingest(sketch, tmp_path)
        before = shards(tmp_path)
        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
        again = ingest(sketch, tmp_path)
        assert again.skipped == again.shards == 5
        assert again.counts == first.counts
        assert again.files == first.files
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        store = open_store(str(tmp_path))
        for name in ("val/part-00000", "train/part-00001"):  # as if killed before both were listed
            store.delete(f"manifest/samples/{name}.json")
        store.delete("samples/val/part-00000.parquet")
        resumed = ingest(sketch, tmp_path)
        assert resumed.skipped == 3
        assert [file.sha256 for file in resumed.files] == [file.sha256 for file in first.files]
        assert shards(tmp_path) == before

    def test_a_listed_shard_that_is_gone_is_named(self, sketch: Path, tmp_path: Path) -> None:
        ingest(sketch, tmp_path)
        lost = tmp_path / "samples/val/part-00000.parquet"
        whole = lost.read_bytes()
        lost.unlink()
        with pytest.raises(DamagedError, match=r"val/part-00000.parquet is listed but missing: uniemo store"):
            ingest(sketch, tmp_path)
        lost.write_bytes(whole[:1000])
        with pytest.raises(DamagedError, match=r"val/part-00000.parquet is no whole shard .*: uniemo store"):
            ingest(sketch, tmp_path)

    def test_other_content_is_written_again_and_old_shards_go(self, sketch: Path, tmp_path: Path) -> None:
        ingest(sketch, tmp_path, limits=ShardLimits(10, 1 << 30))
        train = tmp_path / "samples" / "train"
        (train / "mine.txt").write_text("not a shard")
        larger = ingest(sketch, tmp_path)
        # Ten test images lie in one shard under both plans; the other shards are made anew.
        assert larger.skipped == 2
        assert larger.shards == 5
        assert len(list(train.glob("*.parquet"))) == 3
        assert (train / "mine.txt").is_file()
        assert ingest(sketch, tmp_path, source="t").skipped == 0

    def test_rejected_rows_are_counted_listed_and_remembered(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "broken"
        shutil.copytree(sketch, root)
        train = EmoSetFolder(root).entries("train")
        (root / train[0].image).write_bytes((root / train[0].image).read_bytes()[:700])
        (root / train[1].annotation).unlink()
        (root / train[2].image).unlink()
        test = json.loads((root / "test.json").read_text())
        (root / "test.json").write_text(json.dumps([*test, json.loads((root / "train.json").read_text())[5]]))
        expected = {"annotation_missing": 1, "duplicate_id": 1, "image_missing": 1, "image_truncated": 1}
        for skipped in (0, 5):
            result = ingest(root, tmp_path / "out")
            assert result.rejected_counts == expected
            assert result.skipped == skipped
            assert result.counts == {**SIZES, "train": 57}
            listed = {(item.split, item.image_id, item.reason) for item in result.rejected}
            assert ("train", train[1].image_id, "annotation_missing") in listed
            assert len(listed) == 4
        # A repaired file is noticed.
        shutil.copy(sketch / train[2].image, root / train[2].image)
        repaired = ingest(root, tmp_path / "out")
        assert repaired.counts["train"] == 58
        assert repaired.skipped == 4

    def test_a_shard_of_which_every_image_is_rejected_is_a_shard_without_rows(
        self, sketch: Path, tmp_path: Path
    ) -> None:
        root = tmp_path / "broken"
        shutil.copytree(sketch, root)
        folder = EmoSetFolder(root)
        plan = plan_shards(folder.entries("train"), "train", root=root, limits=ShardLimits(7, 1 << 30))
        for entry in plan[3].entries:
            (root / entry.image).write_bytes(b"nothing")
        result = ingest(root, tmp_path / "out", limits=ShardLimits(7, 1 << 30))
        assert result.rejected_counts == {"image_corrupt": 7}
        assert [entry.rows for entry in result.files if "/train/" in entry.key][3] == 0
        store = open_store(str(tmp_path / "out"))
        for kept in (10**9, 0):  # through the driver, and by processes that read
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(datasets, "SMALL_BYTES", kept)
                rows = datasets.as_dataset(store, "samples/train").take_all()
            assert len(rows) == result.counts["train"] == SIZES["train"] - 7
            assert all(row["image"] for row in rows)

    def test_set_without_attributes(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "bare"
        shutil.copytree(sketch, root)
        for path in root.glob("annotation/*/*.json"):
            path.write_text("{}")
        info = json.loads((root / "info.json").read_text())
        (root / "info.json").write_text(json.dumps({"emotion": info["emotion"]}))
        result = ingest(root, tmp_path / "out")
        assert result.counts == SIZES
        assert result.scenes == result.objects == ()
        assert result.with_scene == result.with_object == 0
        assert any("without the contrastive object term" in note for note in result.notes)
        table = pq.read_table(tmp_path / "out/samples/val/part-00000.parquet")
        assert table.column("scene").null_count == 8
        assert table.schema.field("objects").type == pa.list_(pa.string())

    def test_names_are_collected_when_info_lists_none(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "unlisted"
        shutil.copytree(sketch, root)
        info = json.loads((root / "info.json").read_text())
        (root / "info.json").write_text(json.dumps({"emotion": info["emotion"]}))
        result = ingest(root, tmp_path / "out")
        found = {json.loads(path.read_text())["scene"] for path in root.glob("annotation/*/*.json")}
        assert result.scenes == tuple(sorted(found))

    def test_emotion_whose_images_are_all_lost_is_an_error(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "lost"
        shutil.copytree(sketch, root)
        for path in root.glob("image/awe/*_train_*"):
            path.unlink()
        with pytest.raises(
            ValueError, match=r"no usable training image of awe \(rejected: \d+ image_missing\)"
        ):
            ingest(root, tmp_path / "out")

    def test_a_picture_that_kills_its_reader_is_rejected(self, sketch: Path, tmp_path: Path) -> None:
        victim = EmoSetFolder(sketch).entries("train")[7]
        result = ingest(sketch, tmp_path, actor=partial(Deadly, victim=victim.image_id))
        assert result.counts == {**SIZES, "train": 59}
        assert result.rejected_counts == {"killed 2 processes": 1}
        (item,) = result.rejected
        assert (item.image_id, item.path, item.split) == (victim.image_id, victim.image, "train")
        assert sum(sum(file.failed.values()) for file in result.files) == 1
        rows = pq.read_table(tmp_path / "samples" / "train", columns=["image_id"])["image_id"].to_pylist()
        assert len(rows) == 59
        assert victim.image_id not in rows
        assert ingest(sketch, tmp_path).rejected == result.rejected  # remembered with the shard

    def test_a_picture_that_raises_is_rejected(self, sketch: Path, tmp_path: Path) -> None:
        victim = EmoSetFolder(sketch).entries("test")[2].image_id
        result = ingest(sketch, tmp_path, actor=partial(Raising, victim=victim))
        assert result.counts == {**SIZES, "test": 9}
        (item,) = result.rejected
        assert (item.image_id, item.reason, item.detail) == (
            victim,
            "RuntimeError",
            "RuntimeError: decoder broke",
        )

    def test_a_superseded_driver_commits_nothing(self, sketch: Path, tmp_path: Path) -> None:
        run = open_store(str(tmp_path))
        with Lease(run) as lease:
            store = run.sub("step").fenced(lease.fence)
            run.write_bytes("lock/00000002.json", b"{}")  # another driver's lease
            with pytest.raises(SupersededError, match="another driver has taken over"):
                ingest_folder(sketch, store, source="s", limits=LIMITS)
            run.delete("lock/00000002.json")
        assert not committed(run.sub("step"))
