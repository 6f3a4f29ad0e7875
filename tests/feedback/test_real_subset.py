"""Fewer real images: which ones count, what trains on them, and which steps know of it."""

from pathlib import Path

import numpy as np
import pytest

from tests.loop.steps.test_feedback import Context, commit, context, real
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.feedback.real_subset import RealSubset, facts_of, subset_of
from uniemo_ray.loop.declare import view_of_row
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.loop.steps import data
from uniemo_ray.loop.steps.training import training_set
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.workload import stage_work
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.loading.pieces import read_columns

IDS = [f"image-{number}" for number in range(200)]


def test_a_smaller_subset_lies_in_a_larger_one_and_order_does_not_count():
    masks = {count: RealSubset(count, seed=3).mask(IDS) for count in (16, 50, 200)}
    assert {count: int(mask.sum()) for count, mask in masks.items()} == {16: 16, 50: 50, 200: 200}
    assert not (masks[16] & ~masks[50]).any()
    assert np.array_equal(RealSubset(50, seed=3).mask(IDS[::-1])[::-1], masks[50])
    assert not np.array_equal(RealSubset(50, seed=4).mask(IDS), masks[50])
    assert RealSubset(50, seed=3).keep(IDS).to_pylist() == [
        name for name, is_in in zip(IDS, masks[50], strict=True) if is_in
    ]


def test_more_images_than_there_are_is_said_before_anything_trains(tmp_path: Path):
    with pytest.raises(ValueError, match=r"feedback.real_images is 201, but the training split has 200"):
        RealSubset(201, seed=0).mask(IDS)
    known = context(tmp_path, "check-size", "ingest")  # six images
    config = load_config("tiny", ["stage1.batch_size=4", "stage2.batch_size=4", "resources.workers=1"])
    with pytest.raises(ValueError, match=r"feedback.real_images is 16, but the training split has 6"):
        data.check_size(known, config, subset=RealSubset(16, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"3 usable images, less than one batch of 4"):
        data.check_size(known, config, subset=RealSubset(3, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["natural", "emotion"])
def test_training_shows_the_subset_and_all_generated_images(tmp_path: Path, sampling: str):
    rows = [real(number) for number in range(6)]
    store = open_store(str(tmp_path / "ingest"))
    commit(store, "samples/train/part-00000", rows[:4], SAMPLES)
    commit(store, "samples/train/part-00001", rows[4:], SAMPLES)
    made = [{**real(number), "image_id": f"made-{number}"} for number in range(2)]
    commit(open_store(str(tmp_path / "mix-1")), "synthetic/part-00000", made, SAMPLES)
    known: Context = context(tmp_path, "understanding-2", "ingest", "mix-1")
    config = load_config("tiny", ["resources.workers=1", f"stage1.sampling={sampling}"])
    subset = RealSubset(3, seed=0)
    found = training_set(known, config, stage="understanding", round_=2, subset=subset)  # type: ignore[arg-type]
    ids = read_columns(found, ["image_id"])["image_id"].to_pylist()
    shown = {name for name, count in zip(ids, found.repeats, strict=True) if count}
    expected = set(subset.keep([row["image_id"] for row in rows]).to_pylist())
    assert shown == expected | {"made-0", "made-1"}
    if sampling == "natural":
        assert found.rows == 5


def settings_of(*overrides: str) -> dict[str, dict[str, object]]:
    config = load_config("demo", list(overrides))
    return {row.name: view_of_row(row, config)[1] for row in feedback_loop_steps(config)}


def changed(one: dict[str, dict[str, object]], other: dict[str, dict[str, object]]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def test_only_steps_that_see_real_training_images_depend_on_it():
    plain, fewer = settings_of(), settings_of("feedback.real_images=64")
    later = settings_of("feedback.real_images=64", "feedback.later_real_images=128")
    assert not any("real_images" in settings for settings in plain.values())  # old runs stay as they are
    trained = {f"{name}-{round_}" for name in ("understanding", "joint", "model") for round_ in (1, 2)}
    assert changed(plain, fewer) == {"check-size", "scorers", "coefficients", "mix-1", *trained}
    assert changed(fewer, later) == {"understanding-2", "joint-2", "model-2", "mix-1"}


def test_rounds_have_their_own_numbers():
    config = load_config("demo", ["feedback.real_images=64", "feedback.later_real_images=128"])
    assert [subset_of(config, round_) for round_ in (1, 2)] == [RealSubset(64, 0), RealSubset(128, 0)]
    assert subset_of(load_config("demo", [])) is None
    assert facts_of(None) == {}
    with pytest.raises(ValueError, match=r"later_real_images needs feedback\.real_images"):
        load_config("demo", ["feedback.later_real_images=128"])


def test_the_plan_counts_it():
    overrides = [
        "feedback.real_images=640",
        "feedback.later_real_images=1280",
        "feedback.synthetic_fraction=0",
    ]
    work = stage_work(load_config("demo", overrides), images=1400)
    assert [stage.images for stage in work] == [640, 640, 1280, 1280]
