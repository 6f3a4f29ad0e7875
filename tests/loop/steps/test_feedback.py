"""The explicit feedback from verdicts to the next round's training set."""

import io
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from uniemo_ray.config import Config
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import IMAGES, KEPT, SCORES
from uniemo_ray.loop.steps import data, feedback
from uniemo_ray.loop.steps.training import training_set, validation_set
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.store.steps import StepOutput
from uniemo_ray.training.loading.pieces import ShardRows, read_columns
from uniemo_ray.training.stage_settings import StageSettings

REAL, GENERATED, KEPT_IMAGES, WANTED = 6, 8, 5, 4


@dataclass(frozen=True)
class Context:
    """A step's folder and those of its inputs, without a run around them."""

    root: Path
    name: str
    inputs: dict[str, StepOutput]
    fingerprint: str = "f"
    pool: str = "generate"

    @property
    def artefacts(self) -> Store:
        return self.artefacts_of(self.name)

    def artefacts_of(self, name: str) -> Store:
        return open_store(str(self.root / name))


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def commit(store: Store, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    whole = [{key: row.get(key) for key in schema.names} for row in rows]
    commit_shard(store, name, pa.Table.from_pylist(whole, schema=schema), plan_hash="p")


def real(number: int) -> dict[str, Any]:
    return {
        "image_id": f"real-{number}",
        "image": png(number),
        "emotion": EMOTIONS[number],
        "scene": "sky",
        "objects": ["cat"],
        "split": "train",
        "source": "test",
        "sha256": "0" * 64,
        "width": 64,
        "height": 64,
    }


def generated(number: int) -> dict[str, Any]:
    return {
        "image_id": f"made-{number}",
        "image": png(100 + number),
        "sha256": "1" * 64,
        "emotion": EMOTIONS[7 - number],
        "width": 64,
        "height": 64,
        "scene": "sky",
        "object": "cat",
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config("tiny", ["feedback.synthetic_fraction=0.4", f"run={tmp_path}", "resources.workers=1"])


def context(root: Path, name: str, *inputs: str) -> Context:
    sizes = {"sizes": {"train": REAL, "val": 2}}
    return Context(root, name, {each: StepOutput(outputs=sizes) for each in inputs})


def everything(data: ShardRows) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_columns(data, data.columns).to_pylist()
    return rows


def write_inputs(root: Path) -> None:
    """What the steps before `mix-1` have left."""
    reals = [real(number) for number in range(REAL)]
    commit(open_store(str(root / "ingest")), "samples/train/part-00000", reals[:4], SAMPLES)
    commit(open_store(str(root / "ingest")), "samples/train/part-00001", reals[4:], SAMPLES)
    ids = pa.schema([SAMPLES.field("image_id")])
    commit(open_store(str(root / "features")), "train/part-00000", reals, ids)
    made = [generated(number) for number in range(GENERATED)]
    commit(open_store(str(root / "generate-1")), "images/part-00000", made, IMAGES)
    kept = [{"image_id": row["image_id"], "kept": number < KEPT_IMAGES} for number, row in enumerate(made)]
    commit(open_store(str(root / "filter-1")), "kept/part-00000", kept, KEPT)


@pytest.mark.ray
@pytest.mark.slow
def test_round_two_trains_on_real_and_kept_images(ray_session: None, tmp_path: Path, config: Config) -> None:
    """Of eight generated images five are kept and four are wanted; each comes in once, as it was meant."""
    write_inputs(tmp_path)
    steps = ("ingest", "features", "generate-1", "filter-1")
    data.latents(context(tmp_path, "latents", "ingest"), config)  # type: ignore[arg-type]
    mixed = feedback.mix(context(tmp_path, "mix-1", *steps), config, round_=1)  # type: ignore[arg-type]
    assert (mixed.metrics["synthetic"], mixed.metrics["wanted"], mixed.metrics["real"]) == (4, 4, 6)
    meant = {generated(number)["image_id"]: generated(number)["emotion"] for number in range(KEPT_IMAGES)}
    known = context(tmp_path, "train", "ingest", "latents", "mix-1")
    for stage in ("understanding", "joint"):
        rows = everything(training_set(known, config, stage=stage, round_=2))  # type: ignore[arg-type]
        found = {row["image_id"]: row for row in rows}
        assert len(rows) == len(found) == REAL + WANTED
        assert {f"real-{number}" for number in range(REAL)} < set(found)
        made = {name: row for name, row in found.items() if name.startswith("made-")}
        assert len(made) == WANTED
        assert {name: row["emotion"] for name, row in made.items()} == {name: meant[name] for name in made}
        assert all(row["scene"] is None and not len(row["objects"]) for row in made.values())
        assert all(row["image"] == png(100 + int(name[-1])) for name, row in made.items())
        assert {row["emotion"] for name, row in found.items() if name not in made} == set(EMOTIONS[:REAL])
        assert set(rows[0]) == {
            *("image_id", "image", "emotion", "scene", "objects"),
            *(["latent"] if stage == "joint" else []),
        }
        first = everything(training_set(known, config, stage=stage, round_=1))  # type: ignore[arg-type]
        assert Counter(row["image_id"] for row in first) == Counter(f"real-{n}" for n in range(REAL))


def test_validation_images_are_those_of_the_split(tmp_path: Path) -> None:
    commit(open_store(str(tmp_path / "ingest")), "samples/val/part-00000", [real(0), real(1)], SAMPLES)
    known = context(tmp_path, "understanding-1", "ingest")

    def ids(*overrides: str) -> list[str] | None:
        config = load_config("tiny", overrides)
        settings = StageSettings(stage="understanding", config=config)
        found = validation_set(known, settings)  # type: ignore[arg-type]
        return None if found is None else sorted(row["image_id"] for row in everything(found))

    assert ids() == ["real-0", "real-1"]
    assert ids("stage1.validate_on=none") is None
    assert ids("stage1.validate_on=test") is None  # no image there
    assert ids("resources.workers=4") is None  # a worker would have none
    with pytest.raises(ValueError, match=r"stage1\.keep_epoch is 'best', but split 'test' has 0 images"):
        ids("stage1.keep_epoch=best", "stage1.validate_on=test")
    with pytest.raises(
        ValueError, match=r"stage1\.stop_after_epochs_without_gain is set, but split 'test' has 0"
    ):
        ids("stage1.stop_after_epochs_without_gain=2", "stage1.validate_on=test")


def scores(count: int) -> list[dict[str, Any]]:
    return [
        {"image_id": f"made-{i}", "emotion": EMOTIONS[0], "emo_score": i / count, "sem_score": 1 - i / count}
        for i in range(count)
    ]


@pytest.mark.parametrize("on_empty", ["continue", "fail"])
def test_a_filter_that_keeps_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, on_empty: str
) -> None:
    """The two scores rank in opposite orders, so no image is in the upper band of both."""
    commit(open_store(str(tmp_path / "score-1")), "scores/part-00000", scores(10), SCORES)
    config = load_config("tiny", ["filter.eta=0", "filter.delta=40", f"filter.on_empty={on_empty}"])
    known = context(tmp_path, "filter-1", "score-1")
    what = r"round 1 keeps none of 10 images: none ranks between filter\.eta 0 % and filter\.delta 40 %"
    if on_empty == "fail":
        with pytest.raises(ValueError, match=what):
            feedback.filter_images(known, config, round_=1)  # type: ignore[arg-type]
        return
    with caplog.at_level(logging.WARNING):
        output = feedback.filter_images(known, config, round_=1)  # type: ignore[arg-type]
    assert output.metrics["kept"] == 0
    assert "Round 2 trains on the real images alone" in caplog.text


def test_a_filter_that_keeps_something_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit(open_store(str(tmp_path / "score-1")), "scores/part-00000", scores(10), SCORES)
    config = load_config("tiny", ["filter.on_empty=fail"])
    with caplog.at_level(logging.WARNING):
        output = feedback.filter_images(context(tmp_path, "filter-1", "score-1"), config, round_=1)  # type: ignore[arg-type]
    assert output.metrics["kept"] == 6
    assert not caplog.records
