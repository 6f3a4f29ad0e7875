"""Emo-A by a classifier and by the exact rule."""

import numpy as np
import pytest

from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS, MIKELS
from uniemo_ray.metrics.emo_a import emo_a, emotion_counts, exact_counts, exact_probabilities


def test_emo_a_counts_the_intended_emotion() -> None:
    found = emo_a(
        emotion_counts(["awe", "awe", "fear"], np.eye(8)[[1, 3, 6]] * 0.8 + 0.025, space=MIKELS),
        name="emo_a_clip",
    )
    assert found.name == "emo_a_clip"
    assert found.top1 == pytest.approx(2 / 3)
    assert found.per_emotion == {"awe": 0.5, "fear": 1.0}
    assert found.two_class == 1.0
    assert found.mean_probability == pytest.approx((0.825 + 0.025 + 0.825) / 3)
    assert found.count == 3


def test_two_classes_are_sums_as_in_the_published_script() -> None:
    """The likeliest emotion is negative, but the positive ones hold more probability together."""
    p = np.array([[0.2, 0.2, 0.2, 0.0, 0.4, 0.0, 0.0, 0.0]])
    published = int(p.reshape(1, 2, 4).sum(axis=2).argmax(axis=1)[0])  # 0 is positive
    assert published == 0
    assert emo_a(emotion_counts(["awe"], p, space=MIKELS), name="emo_a").two_class == 1.0
    assert emo_a(emotion_counts(["fear"], p, space=MIKELS), name="emo_a").two_class == 0.0


def test_exact_judges_a_cemetery_sad_and_a_boxing_ring_angry() -> None:
    rule = load_rule()
    scenes = [rule.scenes.index("cemetery"), rule.scenes.index("boxing_ring")]
    objects = [rule.objects.index("house"), rule.objects.index("helmet")]
    found = emo_a(
        exact_counts(["sadness", "awe"], scenes, objects, rule=rule, space=MIKELS), name="emo_a_exact"
    )
    assert (found.name, found.top1) == ("emo_a_exact", 0.5)
    assert found.per_emotion == {"awe": 0.0, "sadness": 1.0}


def test_exact_on_images_drawn_by_the_rule_reaches_the_ceiling() -> None:
    rule, rng = load_rule(), np.random.default_rng(0)
    emotions = rng.integers(0, 8, size=20_000)
    scenes = [rng.choice(16, p=rule.scene_given_emotion[:, e]) for e in emotions]
    objects = [rng.choice(24, p=rule.object_given_emotion[:, e]) for e in emotions]
    found = emo_a(
        exact_counts([EMOTIONS[e] for e in emotions], scenes, objects, rule=rule, space=MIKELS),
        name="emo_a_exact",
    )
    assert found.top1 == pytest.approx(rule.ceiling().both, abs=4 * found.standard_error)


def test_exact_probabilities_are_the_posterior_row_by_row() -> None:
    rule = load_rule()
    p = exact_probabilities([3, 0, 3], [5, 23, 5], rule=rule)
    np.testing.assert_array_equal(p[1], rule.posterior(0, 23))
    np.testing.assert_array_equal(p[0], p[2])
    np.testing.assert_array_equal(p[0], rule.posterior(3, 5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        emo_a(emotion_counts([], np.zeros((0, 8)), space=MIKELS), name="emo_a")
    with pytest.raises(ValueError, match="unknown mikels label 'joy'"):
        emotion_counts(["joy"], np.ones((1, 8)), space=MIKELS)
    for scene, object_ in ((-1, 0), (16, 0), (0, 24)):
        with pytest.raises(ValueError, match="scenes below 16 and objects below 24"):
            exact_counts(["awe"], [scene], [object_], rule=load_rule(), space=MIKELS)
