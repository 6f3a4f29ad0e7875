"""All metrics of a set of images; those that need published files appear only with them."""

import dataclasses

import numpy as np
import pytest

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics.frechet import frechet
from uniemo_ray.metrics.generation import (
    ImageSet,
    SetMetrics,
    Yardstick,
    feature_sums,
    measure_images,
    needed_rows,
)
from uniemo_ray.metrics.recogniser import Recogniser
from uniemo_ray.report.summary import GenerationMetrics

COUNT, WIDTH = 24, 5
LABELS = [EMOTIONS[i % 3] for i in range(COUNT)]


def image_set(**changes) -> ImageSet:
    rng = np.random.default_rng(0)
    values = {
        "image_ids": [f"i{i}" for i in range(COUNT)],
        "emotions": LABELS,
        "pictures": rng.integers(0, 256, size=(COUNT, 64, 64, 3), dtype=np.uint8).__getitem__,
        "probabilities": rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32),
        "scene_probability": rng.random(COUNT, dtype=np.float32),
        "object_probability": np.full(COUNT, np.nan, dtype=np.float32),
        "features": rng.normal(size=(COUNT, WIDTH)).astype(np.float32),
    }
    return ImageSet(**{**values, **changes})


def yardstick(**changes) -> Yardstick:
    real = np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)
    values = {
        "real": feature_sums(real, LABELS),
        "recogniser": None,
        "clip": "tiny",
        "pretrained": None,
        "pairs": 10,
        "seed": 0,
    }
    return Yardstick(**{**values, **changes})


def test_each_metric_has_the_name_of_its_features():
    metrics = measure_images(image_set(), yardstick())
    found = metrics.to_dict()
    assert {"emo_a", "sem_c_clip", "sem_d_clip", "fd_clip"} <= set(found)
    assert not {"emo_a_exact", "lpips_tiny", "lpips_alex", "fid", "sem_d", "sem_c"} & set(found)
    hits = image_set().probabilities.argmax(axis=1) == [EMOTIONS.index(name) for name in LABELS]
    by_emotion = [hits[[e == name for e in LABELS]].mean() for name in EMOTIONS[:3]]
    assert found["emo_a"] == pytest.approx(np.mean(by_emotion))
    assert set(found["per_emotion"]) == set(EMOTIONS[:3])
    assert (metrics.emo_a, metrics.emo_a_exact) == (found["emo_a"], None)
    exact = measure_images(image_set(), yardstick(recogniser=Recogniser(scenes=16, objects=24)))
    assert list(exact.to_dict()) == [
        "images",
        "emo_a",
        "emo_a_probability",
        "emo_a_two_class",
        "sem_c_clip",
        "sem_d_clip",
        "lpips_tiny",
        "emo_a_exact",
        "fd_clip",
        "standard_errors",
        "per_emotion",
    ]


def test_the_report_reads_every_metric():
    names = {field.name for field in dataclasses.fields(SetMetrics)}
    assert names == set(GenerationMetrics.model_fields)


def test_published_metrics_appear_with_published_weights(alexnet_dir):
    rng = np.random.default_rng(2)
    mine, real = rng.normal(size=(2, COUNT, 7)).astype(np.float32)
    images = image_set(inception=mine)
    found = measure_images(
        images, yardstick(inception=feature_sums(real, LABELS), weights_dir=str(alexnet_dir))
    )
    whole = [feature_sums(rows, ["awe"] * COUNT)["awe"] for rows in (mine, real)]
    assert found.fid == pytest.approx(frechet(*whole, name="fid").distance)
    assert found.lpips_alex > 0
    assert found.per_emotion["awe"]["fid"] > 0


def test_published_probabilities_are_sem_c() -> None:
    judged = np.random.default_rng(3).random((COUNT, 2))
    found = measure_images(image_set(judged=judged), yardstick())
    assert found.sem_c == pytest.approx(judged.max(axis=1).mean())
    assert found.sem_c_clip is not None


@pytest.mark.parametrize("pairs", [2, 1000])
def test_no_more_pictures_are_looked_at_than_those_of_the_pairs(alexnet_dir, pairs):
    seen: set[int] = set()
    pictures = image_set().pictures

    def watched(rows):
        seen.update(rows.tolist())
        return pictures(rows)

    settings = yardstick(weights_dir=str(alexnet_dir), pairs=pairs)
    ids = image_set().image_ids
    measure_images(image_set(pictures=watched), settings)
    assert seen == set(needed_rows(ids, LABELS, settings).tolist())
    assert len(seen) == COUNT if pairs > COUNT else len(seen) <= 2 * pairs * 3 < COUNT
    assert len(needed_rows(ids, LABELS, yardstick())) == 0
    judge = yardstick(recogniser=Recogniser(scenes=16, objects=24))
    assert needed_rows(ids, LABELS, judge).tolist() == list(range(COUNT))
