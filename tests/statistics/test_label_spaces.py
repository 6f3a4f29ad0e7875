"""Coefficients, emotion space, plan and filter in every label space."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.label_spaces import every_space
from uniemo_ray.config import DiffusionConfig, FilterConfig, GenerationConfig
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.rank_filter import filter_shards
from uniemo_ray.feedback.schema import scores_schema
from uniemo_ray.statistics.coefficients import CoefficientSums, coefficients_by_key, mean_absolute_error
from uniemo_ray.statistics.gaussian_space import GaussianSums
from uniemo_ray.statistics.load_space import load_space
from uniemo_ray.store.local import LocalStore
from uniemo_ray.store.shards import commit_shard, read_shards

# M images, C classes, D width
COUNT, WIDTH = 40, 4


@every_space
def test_coefficients_are_means_by_attribute(space: LabelSpace) -> None:
    rng, size = np.random.default_rng(0), len(space.labels)
    p = rng.dirichlet(np.ones(size), COUNT)
    scenes = [("beach", "forest", None)[i % 3] for i in range(COUNT)]
    sums = CoefficientSums(labels=space.labels)
    sums.update(p[:25], scenes[:25], [None] * 25)
    other = CoefficientSums(labels=space.labels)
    other.update(p[25:], scenes[25:], [None] * 15)
    table = sums.merge(other).table()
    assert table.column_names[3:] == [f"alpha_{label}" for label in space.labels]
    exact = {("scene", name): p[[s == name for s in scenes]].mean(axis=0) for name in ("beach", "forest")}
    for key, row in coefficients_by_key(table).items():
        np.testing.assert_allclose(row, exact[key])
    assert mean_absolute_error(table, exact) == pytest.approx(0, abs=1e-12)
    more = exact | {("object", "toy"): np.full(size, 1 / size)}
    assert mean_absolute_error(table, more) == pytest.approx(1 / size / 3)


@every_space
def test_an_emotion_space_draws_each_label(space: LabelSpace, tmp_path: Path) -> None:
    sums, rng = GaussianSums(labels=space.labels), np.random.default_rng(0)
    rows = np.arange(COUNT) % len(space.labels)
    features = rng.normal(size=(COUNT, WIDTH)) + 100 * rows[:, None]
    sums.update(rows, {"cls": features})
    sums.result().save(tmp_path / "space.safetensors")
    found = load_space(tmp_path / "space.safetensors", space.labels)
    assert found.labels == space.labels
    for number, label in enumerate(space.labels):
        drawn = found.sample(label, torch.Generator().manual_seed(1)).features["cls"]
        assert abs(float(drawn.mean()) - 100 * number) < 10
    with pytest.raises(ValueError, match="is no emotion space of"):
        load_space(tmp_path / "space.safetensors", space.labels[::-1])


@every_space
def test_a_plan_asks_for_every_label(space: LabelSpace) -> None:
    plan = PlannedImages(
        round_=1,
        kind="plain",
        per_emotion=2,
        seed=0,
        model="m",
        diffusion=DiffusionConfig(),
        generation=GenerationConfig(),
        emotions=space.labels,
    )
    rows = plan.table.to_pylist()
    assert [row["emotion"] for row in rows] == [*space.labels, *space.labels]
    assert [row["prompt"] for row in rows[: len(space.labels)]] == [
        f"an image of {label.replace('_', ' ')}" for label in space.labels
    ]
    assert len({row["image_id"] for row in rows}) == len(rows)


@every_space
@pytest.mark.parametrize("scope", ["global", "per_emotion"])
def test_the_filter_keeps_its_band(space: LabelSpace, scope: str, tmp_path: Path) -> None:
    size = len(space.labels)
    rows = [
        {
            "image_id": f"r1-emotion-{label}-{number:05d}",
            "emotion": label,
            "emo_score": (10 * column + number) / 100,
            "sem_score": 0.5,
            "probabilities": [1 / size] * size,
        }
        for column, label in enumerate(space.labels)
        for number in range(10)
    ]
    store = LocalStore(tmp_path)
    table = pa.Table.from_pylist(rows, schema=scores_schema(size))
    commit_shard(store, "scores/part-00000", table, plan_hash="p", versions={})
    config = FilterConfig.model_validate({"eta": 20, "delta": 80, "scope": scope, "criteria": ["emo"]})
    filter_shards(store, store, config=config)
    kept = [row["image_id"] for row in read_shards(store, "kept/").to_pylist() if row["kept"]]
    if scope == "per_emotion":
        wanted = [row["image_id"] for row in rows if 2 <= int(row["image_id"][-5:]) < 8]
    else:
        ranked = sorted(rows, key=lambda row: -row["emo_score"])[2 * size : 8 * size]
        wanted = [row["image_id"] for row in ranked]
    assert sorted(kept) == sorted(wanted)
