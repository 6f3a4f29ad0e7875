import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.data.emoset import EmoSetFolder, FolderError
from uniemo_ray.data.emosketch.folder import SketchSettings
from uniemo_ray.data.emosketch.write import write_sketch
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.data.shards import ShardLimits, plan_shards, shard_order
from uniemo_ray.distributed.ingest import ingest_folder
from uniemo_ray.distributed.sketch import SketchFolder, draw_here
from uniemo_ray.emotions import EMOTIONS

SIZES = {"train": 60, "val": 8, "test": 10}
LIMITS = ShardLimits(25, 1 << 30)


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sketch(tmp_path_factory.mktemp("ingest") / "set", **SIZES, seed=0, size_px=32)


def shards(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_plan_is_stable_and_mixed() -> None:
    entries = [Entry(f"{e}_{i}", e, "i", "a") for e in EMOTIONS for i in range(40)]
    limits = ShardLimits(64, 1 << 30)
    plan = plan_shards(entries, "train", root=Path("set"), limits=limits)
    assert plan == plan_shards(entries[::-1], "train", root=Path("set"), limits=limits)
    assert [spec["name"] for spec in plan] == [f"part-{i:05d}.parquet" for i in range(5)]
    rows = [entry for spec in plan for entry in spec["entries"]]
    assert sorted(rows) == sorted(entries)
    assert rows != entries
    assert [shard_order(e.image_id) for e in rows] == sorted(shard_order(e.image_id) for e in rows)
    for spec in plan:
        assert len({entry.emotion for entry in spec["entries"]}) == 8


def test_structural_faults_come_before_ray(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder"):
        ingest_folder(tmp_path / "nowhere", str(tmp_path / "out"), source="x")
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestThroughRay:
    def test_shards_hold_the_folder(self, sketch: Path, tmp_path: Path) -> None:
        result = ingest_folder(sketch, str(tmp_path), source="emosketch", limits=LIMITS)
        assert result.counts == SIZES
        assert result.rejected == ()
        assert result.skipped == 0
        assert (len(result.scenes), len(result.objects)) == (16, 24)
        names = [f"train/part-{i:05d}.parquet" for i in range(3)]
        assert sorted(shards(tmp_path)) == sorted(
            [*names, "val/part-00000.parquet", "test/part-00000.parquet"]
        )
        rows = [row for name in names for row in pq.read_table(tmp_path / name, schema=SAMPLES).to_pylist()]
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

        options = {"source": "emosketch", "limits": LIMITS}
        ingest_folder(away.root, str(tmp_path / "drawn"), reader=read_then_lose, prepare=away.draw, **options)
        ingest_folder(sketch, str(tmp_path / "there"), **options)
        for name in shards(tmp_path / "there"):
            drawn, there = (pq.read_table(tmp_path / out / name) for out in ("drawn", "there"))
            assert drawn.to_pylist() == there.to_pylist()

    def test_rerun_skips_what_is_done_and_repairs_what_is_not(self, sketch: Path, tmp_path: Path) -> None:
        first = ingest_folder(sketch, str(tmp_path), source="s", limits=LIMITS)
        before = shards(tmp_path)
        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
        again = ingest_folder(sketch, str(tmp_path), source="s", limits=LIMITS)
        assert again.skipped == again.shards == 5
        assert again.counts == first.counts
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        lost, cut = tmp_path / "val/part-00000.parquet", tmp_path / "train/part-00001.parquet"
        lost.unlink()
        cut.write_bytes(cut.read_bytes()[:1000])
        (tmp_path / "train" / ".part-00002.parquet.abc.tmp").write_bytes(b"left by a kill")
        repaired = ingest_folder(sketch, str(tmp_path), source="s", limits=LIMITS)
        assert repaired.skipped == 3
        assert shards(tmp_path) == before

    def test_other_content_is_written_again_and_old_shards_go(self, sketch: Path, tmp_path: Path) -> None:
        ingest_folder(sketch, str(tmp_path), source="s", limits=ShardLimits(10, 1 << 30))
        (tmp_path / "train" / "mine.txt").write_text("not a shard")
        larger = ingest_folder(sketch, str(tmp_path), source="s", limits=LIMITS)
        # Ten test images lie in one shard under both plans; the other shards are made anew.
        assert larger.skipped == 2
        assert larger.shards == 5
        assert len(list((tmp_path / "train").glob("*.parquet"))) == 3
        assert (tmp_path / "train" / "mine.txt").is_file()
        assert ingest_folder(sketch, str(tmp_path), source="t", limits=LIMITS).skipped == 0

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
            result = ingest_folder(root, str(tmp_path / "out"), source="s", limits=LIMITS)
            assert result.rejected_counts == expected
            assert result.skipped == skipped
            assert result.counts == {**SIZES, "train": 57}
            listed = {(item.split, item.image_id, item.reason) for item in result.rejected}
            assert ("train", train[1].image_id, "annotation_missing") in listed
            assert len(listed) == 4
        # A repaired file is noticed.
        shutil.copy(sketch / train[2].image, root / train[2].image)
        repaired = ingest_folder(root, str(tmp_path / "out"), source="s", limits=LIMITS)
        assert repaired.counts["train"] == 58
        assert repaired.skipped == 4

    def test_set_without_attributes(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "bare"
        shutil.copytree(sketch, root)
        for path in root.glob("annotation/*/*.json"):
            path.write_text("{}")
        info = json.loads((root / "info.json").read_text())
        (root / "info.json").write_text(json.dumps({"emotion": info["emotion"]}))
        result = ingest_folder(root, str(tmp_path / "out"), source="s")
        assert result.counts == SIZES
        assert result.scenes == result.objects == ()
        assert result.with_scene == result.with_object == 0
        assert any("without the contrastive object term" in note for note in result.notes)
        table = pq.read_table(tmp_path / "out/val/part-00000.parquet")
        assert table.column("scene").null_count == 8
        assert table.schema.field("objects").type == pa.list_(pa.string())

    def test_names_are_collected_when_info_lists_none(self, sketch: Path, tmp_path: Path) -> None:
        root = tmp_path / "unlisted"
        shutil.copytree(sketch, root)
        info = json.loads((root / "info.json").read_text())
        (root / "info.json").write_text(json.dumps({"emotion": info["emotion"]}))
        result = ingest_folder(root, str(tmp_path / "out"), source="s", limits=LIMITS)
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
            ingest_folder(root, str(tmp_path / "out"), source="s")
