"""All metrics of a set of images; those that need published files appear only with them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metrics.sets import COUNT, LABELS, image_set, yardstick
from uniemo_ray.data.images import to_unit_range
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics import generation
from uniemo_ray.metrics.emo_a import emo_a, emo_a_exact
from uniemo_ray.metrics.frechet import FeatureSums, frechet
from uniemo_ray.metrics.generation import (
    ImageSet,
    PublishedFeatures,
    SetMetrics,
    Yardstick,
    feature_sums,
    measure_images,
    needed_rows,
)
from uniemo_ray.metrics.perceptual import alex_distance, lpips_alex, lpips_tiny
from uniemo_ray.metrics.published import draw_published_pairs, lpips_published, sem_d_published
from uniemo_ray.metrics.recogniser import Recogniser, recognise
from uniemo_ray.metrics.sem_c import sem_c
from uniemo_ray.metrics.sem_d import sem_d
from uniemo_ray.models.clip import ClipParts, load_clip
from uniemo_ray.report.summary import GenerationMetrics

IDS = image_set().image_ids
PAIRS, SEED = 3, 5
UNEVEN = ["awe", *LABELS[1:-1], "sadness"]
"""One emotion has a single image, so nothing of pairs or of a covariance."""


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(scenes=16, objects=24).eval()


@pytest.fixture(scope="module")
def clip() -> ClipParts:
    return load_clip("tiny")


def everything() -> ImageSet:
    """Images of which all was measured."""
    rng = np.random.default_rng(7)
    return image_set(
        emotions=UNEVEN,
        object_probability=rng.random(COUNT, dtype=np.float32),
        inception=rng.normal(size=(COUNT, 7)).astype(np.float32),
        published=PublishedFeatures(rng.normal(size=(COUNT - 4, 7)).astype(np.float32), UNEVEN[:-4]),
        judged=rng.random((COUNT, 2)),
    )


def ruler(folder: Path, recogniser: Recogniser, clip: ClipParts) -> Yardstick:
    """A yardstick for all metrics, with other pairs and another seed than the usual ones."""
    rng = np.random.default_rng(8)
    features = rng.normal(size=(2, COUNT, 7)).astype(np.float32)
    return yardstick(
        real=feature_sums(rng.normal(size=(COUNT, 5)).astype(np.float32), UNEVEN[::-1]),
        recogniser=recogniser,
        pairs=PAIRS,
        seed=SEED,
        published_clip=lambda: clip,
        judge=lambda rows: np.roll(image_set().probabilities, 1, axis=0).astype(np.float64),
        inception=feature_sums(features[0], LABELS),
        published=feature_sums(features[1], LABELS),
        weights_dir=str(folder),
    )


def whole(sums: dict[str, FeatureSums]) -> FeatureSums:
    first, *rest = sums.values()
    for one in rest:
        first = first.merge(one)
    return first


def test_values_errors_and_emotions_are_those_of_each_metric(alexnet_dir, recogniser, clip):
    images, measure = everything(), ruler(alexnet_dir, recogniser, clip)
    found = measure_images(images, measure)
    seen = recognise(recogniser, to_unit_range(images.pictures(np.arange(COUNT))))
    judged = {
        "emo_a_clip": emo_a(UNEVEN, images.probabilities, name="emo_a_clip"),
        "emo_a": emo_a(UNEVEN, measure.judge(images.features), name="emo_a"),
    }
    exact = emo_a_exact(UNEVEN, seen.scene.numpy(), seen.object.numpy())
    clear = {
        "sem_c": sem_c(*images.judged.T, name="sem_c"),
        "sem_c_clip": sem_c(images.scene_probability, images.object_probability, name="sem_c_clip"),
    }
    options = {"pairs": PAIRS, "seed": SEED}
    drawn = draw_published_pairs(IDS, UNEVEN, seed=SEED)
    pictures = images.pictures
    pairs = {
        "sem_d_l14": sem_d(images.features, IDS, UNEVEN, name="sem_d_l14", **options),
        "sem_d": sem_d_published(pictures, drawn, clip=clip),
        "lpips_tiny": lpips_tiny(pictures, IDS, UNEVEN, recogniser=recogniser, **options),
        "lpips_alex": lpips_alex(pictures, IDS, UNEVEN, weights_dir=alexnet_dir, **options),
        "lpips": lpips_published(pictures, drawn, distance=alex_distance(alexnet_dir)),
    }
    distances = {
        "fd_clip": (feature_sums(images.features, UNEVEN), measure.real),
        "fid_train": (feature_sums(images.inception, UNEVEN), measure.inception),
        "fid_small": (feature_sums(*images.published), measure.published),
    }

    values = {name: one.top1 for name, one in judged.items()} | {"emo_a_exact": exact.top1}
    values |= {f"{name}_probability": one.mean_probability for name, one in judged.items()}
    values |= {f"{name}_two_class": one.two_class for name, one in judged.items()}
    values |= {name: one.mean for name, one in (clear | pairs).items()}
    values |= {
        name: frechet(whole(mine), whole(real), name=name).distance
        for name, (mine, real) in distances.items()
    }
    measured = found.to_dict()
    assert {name: measured[name] for name in values} == pytest.approx(values)
    assert set(measured) == {"images", "standard_errors", "per_emotion", *values}
    assert found.images == COUNT
    assert found.standard_errors == pytest.approx(
        {name: one.standard_error for name, one in (judged | clear | pairs).items()}
        | {"emo_a_exact": exact.standard_error}
    )
    by_emotion = {name: one.per_emotion for name, one in (judged | pairs | {"emo_a_exact": exact}).items()}
    for name, (mine, real) in distances.items():
        by_emotion[name] = {
            emotion: frechet(sums, real[emotion], name=name).distance
            for emotion, sums in mine.items()
            if sums.count > 1 and emotion in real and real[emotion].count > 1
        }
    turned = {
        emotion: {name: part[emotion] for name, part in by_emotion.items() if emotion in part}
        for emotion in set(UNEVEN)
    }
    assert set(found.per_emotion) == set(turned)
    for emotion, metrics in turned.items():
        assert found.per_emotion[emotion] == pytest.approx(metrics), emotion
    assert "fd_clip" not in found.per_emotion["sadness"]


def test_real_images_are_not_measured_by_a_protocol_for_generated_ones(alexnet_dir, recogniser, clip):
    images = dataclasses.replace(everything(), is_generated=False, published=None)
    found = measure_images(images, ruler(alexnet_dir, recogniser, clip)).to_dict()
    assert not {"lpips", "sem_d", "fid", "fid_small"} & set(found)
    assert {"lpips_alex", "sem_d_l14", "fid_train", "emo_a", "sem_c"} <= set(found)


@pytest.mark.parametrize("missing", ["scene", "object"])
def test_one_unknown_attribute_leaves_the_other_and_none_leaves_no_clarity(missing):
    known = {"scene": "object_probability", "object": "scene_probability"}[missing]
    unknown = np.full(COUNT, np.nan, dtype=np.float32)
    values = np.linspace(0.1, 0.9, COUNT, dtype=np.float32)
    found = measure_images(image_set(**{f"{missing}_probability": unknown, known: values}), yardstick())
    assert found.sem_c_clip == pytest.approx(values.mean())
    values[3] = np.nan
    images = image_set(**{f"{missing}_probability": unknown, known: values})
    assert measure_images(images, yardstick()).sem_c_clip is None


def test_the_recogniser_looks_at_a_batch_of_pictures_at_a_time(recogniser, monkeypatch):
    pictures, asked = image_set().pictures, []

    def watched(rows):
        asked.append(rows.tolist())
        return pictures(rows)

    settings = yardstick(recogniser=recogniser, pairs=1)
    expected = measure_images(image_set(), settings).emo_a_exact
    monkeypatch.setattr(generation, "BATCH", 5)
    found = measure_images(image_set(pictures=watched), settings).emo_a_exact
    assert [rows for rows in asked if len(rows) > 1 and rows == sorted(rows)][-5:] == [
        list(range(start, min(start + 5, COUNT))) for start in range(0, COUNT, 5)
    ]
    assert found == expected


def test_each_metric_has_the_name_of_its_features():
    metrics = measure_images(image_set(), yardstick())
    found = metrics.to_dict()
    assert {"emo_a_clip", "sem_c_clip", "sem_d_clip", "fd_clip"} <= set(found)
    published = {"emo_a", "lpips", "fid", "sem_d", "sem_c"}
    others = {"emo_a_exact", "lpips_tiny", "lpips_alex", "fid_small", "fid_train", "sem_d_l14"}
    assert not (published | others) & set(found)
    hits = image_set().probabilities.argmax(axis=1) == [EMOTIONS.index(name) for name in LABELS]
    by_emotion = [hits[[e == name for e in LABELS]].mean() for name in EMOTIONS[:3]]
    assert found["emo_a_clip"] == pytest.approx(np.mean(by_emotion))
    assert set(found["per_emotion"]) == set(EMOTIONS[:3])
    assert (metrics.emo_a_clip, metrics.emo_a, metrics.emo_a_exact) == (found["emo_a_clip"], None, None)
    exact = measure_images(image_set(), yardstick(recogniser=Recogniser(scenes=16, objects=24).eval()))
    assert list(exact.to_dict()) == [
        "images",
        "emo_a_clip",
        "emo_a_clip_probability",
        "emo_a_clip_two_class",
        "emo_a_exact",
        "sem_c_clip",
        "sem_d_clip",
        "lpips_tiny",
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
    assert found.fid_train == pytest.approx(frechet(*whole, name="fid_train").distance)
    assert found.lpips_alex > 0
    assert found.lpips > 0
    assert found.per_emotion["awe"]["fid_train"] > 0
    assert "lpips" not in found.per_emotion["awe"]  # its pairs mix emotions
    assert (found.fid, found.fid_small) == (None, None)


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
    assert seen == set(needed_rows(ids, LABELS, settings, is_generated=True).tolist())
    ours = needed_rows(ids, LABELS, settings, is_generated=False)
    assert len(ours) == COUNT if pairs > COUNT else len(ours) <= 2 * pairs * 3 < COUNT
    assert set(ours.tolist()) < seen if pairs < COUNT else set(ours.tolist()) == seen
    assert len(needed_rows(ids, LABELS, yardstick(), is_generated=True)) == 0
    judge = yardstick(recogniser=Recogniser(scenes=16, objects=24))
    assert needed_rows(ids, LABELS, judge, is_generated=True).tolist() == list(range(COUNT))
