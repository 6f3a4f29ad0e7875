"""All metrics of a set of images; those that need published files appear only with them."""

import dataclasses

import numpy as np
import pytest

from tests.metrics.sets import COUNT, LABELS, feature_sums, image_set, yardstick
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS, MIKELS
from uniemo_ray.metrics.emo_a import emo_a, emotion_counts, exact_counts
from uniemo_ray.metrics.frechet import frechet
from uniemo_ray.metrics.generation import (
    SetMetrics,
    Sides,
    measure_images,
    needed_rows,
    paired_rows,
)
from uniemo_ray.metrics.recogniser import Recogniser
from uniemo_ray.metrics.seen import count_seen
from uniemo_ray.metrics.sem_c import clarity, sem_c
from uniemo_ray.metrics.sem_d import sem_d
from uniemo_ray.metrics.shard_sums import PictureCounts
from uniemo_ray.report.summary import GenerationMetrics


def test_each_metric_has_the_name_of_its_features():
    metrics = measure_images(image_set(), yardstick())
    found = metrics.to_dict()
    assert {"emo_a_clip", "sem_c_clip", "sem_d_clip", "fd_clip"} <= set(found)
    published = {"emo_a", "lpips", "fid", "sem_d", "sem_c"}
    others = {"emo_a_exact", "lpips_tiny", "lpips_alex", "fid_small", "fid_train", "sem_d_l14"}
    assert not (published | others) & set(found)
    probabilities = np.random.default_rng(2).dirichlet(np.ones(8), size=COUNT).astype(np.float32)
    hits = probabilities.argmax(axis=1) == [EMOTIONS.index(name) for name in LABELS]
    judged = measure_images(image_set(probabilities=probabilities), yardstick())
    assert judged.emo_a_clip == pytest.approx(hits.mean())
    assert set(found["per_emotion"]) == set(EMOTIONS[:3])
    assert (metrics.emo_a_clip, metrics.emo_a, metrics.emo_a_exact) == (found["emo_a_clip"], None, None)
    asked: dict[str, list[str | None]] = {
        "named_scenes": [load_rule().scenes[0], *[None] * (COUNT - 1)],
        "named_objects": [load_rule().objects[1], *[load_rule().objects[0]] * (COUNT - 1)],
    }
    counts = count_seen(
        LABELS,
        [0] * COUNT,
        [0] * COUNT,
        scene_names=load_rule().scenes,
        object_names=load_rule().objects,
        **asked,
    )
    seen = PictureCounts(
        exact_counts(LABELS, [0] * COUNT, [0] * COUNT, rule=load_rule(), space=MIKELS), counts
    )
    judge = yardstick(recogniser=Recogniser(scenes=16, objects=24))
    exact = measure_images(image_set(recognised=seen), judge)
    assert list(exact.to_dict()) == [
        "images",
        "emo_a_clip",
        "emo_a_clip_probability",
        "emo_a_clip_two_class",
        "emo_a_exact",
        "scene_fidelity",
        "object_fidelity",
        "effective_scenes",
        "effective_objects",
        "sem_c_clip",
        "sem_d_clip",
        "lpips_tiny",
        "fd_clip",
        "standard_errors",
        "per_emotion",
    ]
    assert (exact.scene_fidelity, exact.object_fidelity) == (1, pytest.approx(1 - 1 / COUNT))
    assert (exact.effective_scenes, exact.effective_objects) == (1, 1)
    assert exact.per_emotion["awe"]["effective_scenes"] == 1
    by_rule = emo_a(seen.exact, name="emo_a_exact")
    assert exact.standard_errors["emo_a_exact"] == by_rule.standard_error
    assert exact.per_emotion["awe"]["emo_a_exact"] == by_rule.per_emotion["awe"]


def test_the_report_reads_every_metric():
    names = {field.name for field in dataclasses.fields(SetMetrics)}
    assert names == set(GenerationMetrics.model_fields)


def test_published_metrics_appear_with_published_weights(alexnet_dir):
    rng = np.random.default_rng(2)
    mine, real = rng.normal(size=(2, COUNT, 7)).astype(np.float32)
    sides = Sides("fid_train", *(feature_sums(rows, LABELS) for rows in (mine, real)))
    found = measure_images(image_set(sides=(sides,)), yardstick(weights_dir=str(alexnet_dir)))
    whole = [feature_sums(rows, ["awe"] * COUNT)["awe"] for rows in (mine, real)]
    assert found.fid_train == pytest.approx(frechet(*whole, name="fid_train").distance)
    assert found.lpips_alex > 0
    assert found.lpips > 0
    assert found.per_emotion["awe"]["fid_train"] > 0
    assert "lpips" not in found.per_emotion["awe"]  # its pairs mix emotions
    assert (found.fid, found.fid_small) == (None, None)


def test_published_probabilities_are_sem_c() -> None:
    judged = np.random.default_rng(3).random((COUNT, 2))
    found = measure_images(image_set(judged=clarity(*judged.T)), yardstick())
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
    judge = yardstick(recogniser=Recogniser(scenes=16, objects=24), pairs=pairs)
    assert needed_rows(ids, LABELS, judge, is_generated=True).tolist() == ours.tolist()  # lpips_tiny


def test_standard_errors_and_values_by_emotion_are_those_of_each_metric(alexnet_dir):
    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32)
    judge = yardstick(weights_dir=str(alexnet_dir))
    images = image_set(probabilities=probabilities, judged=clarity(*rng.random((COUNT, 2)).T))
    found = measure_images(images, judge)
    hits = probabilities.argmax(axis=1) == [EMOTIONS.index(name) for name in LABELS]
    share = hits.mean()
    assert found.standard_errors["emo_a_clip"] == pytest.approx((share * (1 - share) / COUNT) ** 0.5)
    for emotion in EMOTIONS[:3]:
        own = hits[np.array(LABELS) == emotion].mean()
        assert found.per_emotion[emotion]["emo_a_clip"] == pytest.approx(own)
    assert found.standard_errors["sem_c"] == pytest.approx(sem_c(images.judged, name="sem_c").standard_error)
    clear = sem_c(images.sums.clarity, name="sem_c_clip")
    assert found.standard_errors["sem_c_clip"] == pytest.approx(clear.standard_error)
    options = {"pairs": judge.pairs, "seed": judge.seed}
    distance = sem_d(images.features, images.image_ids, LABELS, name="sem_d_clip", **options)
    assert found.standard_errors["sem_d_clip"] == pytest.approx(distance.standard_error)
    by_emotion = {emotion: found.per_emotion[emotion]["sem_d_clip"] for emotion in EMOTIONS[:3]}
    assert by_emotion == pytest.approx(distance.per_emotion)
    assert set(found.standard_errors) == {
        *("emo_a_clip", "sem_c", "sem_c_clip", "sem_d_clip", "lpips_alex", "lpips"),
    }


def test_the_public_judge_gives_emo_a_and_its_two_shares():
    intended = [EMOTIONS.index(name) for name in LABELS]
    probabilities = np.full((COUNT, 8), 0.04)
    probabilities[np.arange(COUNT), intended] = 0.72
    probabilities[0] = np.roll(probabilities[0], 4)  # the other valence
    public = emotion_counts(LABELS, probabilities, space=MIKELS)
    images = image_set()
    found = measure_images(
        dataclasses.replace(images, sums=dataclasses.replace(images.sums, public=public)), yardstick()
    )
    right = (COUNT - 1) / COUNT
    assert found.emo_a == pytest.approx(right)
    assert found.emo_a_two_class == pytest.approx(right)
    assert found.emo_a_probability == pytest.approx((0.72 * (COUNT - 1) + 0.04) / COUNT)
    assert found.standard_errors["emo_a"] == pytest.approx((right * (1 - right) / COUNT) ** 0.5)
    assert found.per_emotion[LABELS[0]]["emo_a"] == pytest.approx(7 / 8)


def test_paired_rows_are_the_images_whose_features_are_read():
    read: set[int] = set()
    images, settings = image_set(), yardstick(pairs=2, seed=3)

    def watched(rows):
        read.update(rows.tolist())
        return images.features(rows)

    measure_images(dataclasses.replace(images, features=watched), settings)
    rows = paired_rows(images.image_ids, LABELS, settings)
    assert rows.tolist() == sorted(read)
    assert rows.dtype == np.int64
    assert len(rows) < COUNT
    nothing = paired_rows([], [], settings)
    assert (len(nothing), nothing.dtype) == (0, np.int64)
