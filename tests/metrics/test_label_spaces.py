"""Metrics in every label space, and those by valence where there is none."""

import numpy as np
import pytest

from tests.label_spaces import BARE, OWN, SPACES, every_space
from uniemo_ray.distributed.shards.actors.tables import conform
from uniemo_ray.emotions import MIKELS, SENTIMENT, LabelSpace
from uniemo_ray.feedback.schema import SCORES, scores_schema
from uniemo_ray.metrics.accuracy import AccuracyCounts, coarsen
from uniemo_ray.metrics.emo_a import emo_a, emotion_counts
from uniemo_ray.metrics.generation import ImageSet, Sides, Yardstick, measure_images
from uniemo_ray.metrics.score_sums import ScoreSums, sum_scores

COUNT = 60
# M images, C classes


def drawn(space: LabelSpace) -> tuple[list[str], np.ndarray]:
    """Intended labels, and probabilities (M, C)."""
    rng, size = np.random.default_rng(0), len(space.labels)
    return [space.labels[i % size] for i in range(COUNT)], rng.dirichlet(np.ones(size), COUNT)


@every_space
def test_accuracy_and_emo_a_by_their_words(space: LabelSpace) -> None:
    labels, p = drawn(space)
    chosen = [space.labels[i] for i in p.argmax(axis=1)]
    hits = np.mean([mine == wanted for mine, wanted in zip(chosen, labels, strict=True)])
    counts = emotion_counts(labels, p, space=space)
    found, accuracy = emo_a(counts, name="emo_a_clip"), counts.result()
    assert found.top1 == accuracy.top1 == pytest.approx(hits)
    assert list(accuracy.per_class) == list(space.labels)
    sides = [space.valence(name) for name in space.labels]
    judged = [i for i, name in enumerate(labels) if space.valence(name)]
    if not space.has_valence:
        assert accuracy.two_class is accuracy.two_class_sum is found.two_class is None
        return
    same = [space.valence(chosen[i]) == space.valence(labels[i]) for i in judged]
    assert accuracy.two_class == pytest.approx(np.mean(same))
    positive, negative = (p[:, [s == side for s in sides]].sum(axis=1) for side in ("positive", "negative"))
    likelier = np.where(positive >= negative, "positive", "negative")
    summed = [likelier[i] == space.valence(labels[i]) for i in judged]
    assert accuracy.two_class_sum == found.two_class == pytest.approx(np.mean(summed))


def test_parts_of_another_space_do_not_mix() -> None:
    labels, p = drawn(OWN)
    with pytest.raises(ValueError, match=r"expected probabilities \(60, 8\), got \(60, 3\)"):
        AccuracyCounts().update([0] * COUNT, p)
    with pytest.raises(ValueError, match="unknown label 'awe'"):
        emotion_counts(["awe"], p[:1], space=OWN)
    assert emotion_counts(labels, p, space=OWN).space == OWN


@every_space
def test_answers_are_coarsened_where_every_label_has_a_valence(space: LabelSpace) -> None:
    _, p = drawn(space)
    if space in (MIKELS, SENTIMENT):
        np.testing.assert_allclose(coarsen(p, space, SENTIMENT).sum(axis=1), 1)
        return
    with pytest.raises(ValueError, match="say nothing certain about the classes positive, negative"):
        coarsen(p, space, SENTIMENT)


def test_scores_of_eight_emotions_have_the_schema_that_they_had() -> None:
    assert scores_schema(8).equals(SCORES)
    assert scores_schema(3).field("probabilities").type.list_size == 3


def score_sums(space: LabelSpace) -> tuple[ScoreSums, dict[str, np.ndarray]]:
    labels, p = drawn(space)
    rng, schema = np.random.default_rng(1), scores_schema(len(space.labels))
    columns = {field.name: np.full(COUNT, None, dtype=object) for field in schema} | {
        "image_id": np.array([f"i{i:02d}" for i in range(COUNT)]),
        "emotion": np.array(labels),
        "probabilities": p.astype(np.float32),
        "scene_probability": rng.random(COUNT, dtype=np.float32),
        "clip_feature": rng.normal(size=(COUNT, 5)).astype(np.float32),
    }
    halves = [
        conform({name: column[part] for name, column in columns.items()}, schema)
        for part in (slice(0, 20), slice(20, COUNT))
    ]
    return sum_scores(halves, space=space), columns


@every_space
def test_a_set_of_images_is_measured(space: LabelSpace) -> None:
    """Tables of two shards; metrics by valence are left out where they are not defined."""
    sums, columns = score_sums(space)
    yardstick = Yardstick(recogniser=None, pairs=10, seed=0, labels=space.labels)
    images = ImageSet(
        image_ids=columns["image_id"].tolist(),
        emotions=columns["emotion"].tolist(),
        pictures=np.zeros((COUNT, 8, 8, 3), np.uint8).__getitem__,
        features=columns["clip_feature"].__getitem__,
        is_generated=True,
        sums=sums,
        sides=(Sides("fd_clip", sums.features, sums.features),),
    )
    found = measure_images(images, yardstick).to_dict()
    assert found["images"] == COUNT
    assert set(found["per_emotion"]) == set(space.labels)
    assert ("emo_a_clip_two_class" in found) == space.has_valence
    assert found["fd_clip"] == pytest.approx(0, abs=1e-6)


def test_spaces_of_the_tests_differ_in_what_they_can_tell() -> None:
    assert {name for name, space in SPACES.items() if space.has_valence} == {"eight", "six", "two", "own"}
    assert BARE.labels == OWN.labels
