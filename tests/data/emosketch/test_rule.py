import numpy as np
import pytest

from uniemo_ray.data.emosketch.labels import draw_label, image_rng
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS

# S scenes, O objects, C emotions
RULE = load_rule()


def test_names_and_shapes() -> None:
    assert len(RULE.scenes) == 16
    assert len(RULE.objects) == 24
    assert RULE.scene_given_emotion.shape == (16, 8)
    assert RULE.object_given_emotion.shape == (24, 8)
    assert len(set(RULE.scenes + RULE.objects)) == 40


def test_columns_are_smoothed_counts() -> None:
    np.testing.assert_allclose(RULE.scene_given_emotion.sum(axis=0), 1)
    np.testing.assert_allclose(RULE.object_given_emotion.sum(axis=0), 1)
    sadness = [6, 25, 2, 30, 42, 19, 3, 104, 21, 53, 45, 2299]  # the scene counts that are not zero
    cemetery = RULE.scene_given_emotion[RULE.scenes.index("cemetery"), EMOTIONS.index("sadness")]
    assert cemetery == pytest.approx(2300 / (sum(sadness) + 16))
    assert (RULE.scene_given_emotion > 0).all()
    assert (RULE.object_given_emotion > 0).all()


def test_ceiling_is_the_published_one() -> None:
    ceiling = RULE.ceiling()
    assert ceiling.scene == pytest.approx(0.712, abs=5e-4)
    assert ceiling.object == pytest.approx(0.505, abs=5e-4)
    assert ceiling.both == pytest.approx(0.809, abs=5e-4)


def test_posterior_is_bayes() -> None:
    joint = RULE.joint()
    assert joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(joint.sum(axis=(0, 1)), 1 / 8)
    for scene, object_ in ((0, 0), (15, 23), (4, 7)):
        np.testing.assert_allclose(
            RULE.posterior(scene, object_), joint[scene, object_] / joint[scene, object_].sum()
        )


def test_alpha_is_the_mean_posterior_of_images_with_the_attribute() -> None:
    """Eq. 5 by its words: over all (scene, object) with that scene, weighed by how often they come."""
    joint, alpha = RULE.joint(), RULE.alpha()
    pairs = joint.sum(axis=2)
    for s, name in enumerate(RULE.scenes):
        mean = sum(pairs[s, o] * RULE.posterior(s, o) for o in range(24)) / pairs[s].sum()
        np.testing.assert_allclose(alpha["scene", name], mean)
    for o, name in enumerate(RULE.objects):
        mean = sum(pairs[s, o] * RULE.posterior(s, o) for s in range(16)) / pairs[:, o].sum()
        np.testing.assert_allclose(alpha["object", name], mean)
    assert alpha["scene", "cemetery"][EMOTIONS.index("sadness")] > 0.95


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Counts (S, O, C) of 20,000 drawn labels."""
    counts = np.zeros((16, 24, 8))
    for index in range(20_000):
        label = draw_label(image_rng(1, "train", index))
        place = RULE.scenes.index(label.scene), RULE.objects.index(label.object)
        counts[(*place, EMOTIONS.index(label.emotion))] += 1
    return counts


def test_frequencies_follow_the_rule(drawn: np.ndarray) -> None:
    total = drawn.sum()
    np.testing.assert_allclose(drawn.sum(axis=(0, 1)) / total, 1 / 8, atol=0.01)
    per_emotion = drawn.sum(axis=(0, 1))
    # Four standard errors of a share of 2,500 images.
    for found, expected in (
        (drawn.sum(axis=1) / per_emotion, RULE.scene_given_emotion),
        (drawn.sum(axis=0) / per_emotion, RULE.object_given_emotion),
    ):
        assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / 2400) + 1e-3).all()


def test_scene_and_object_are_independent_given_the_emotion(drawn: np.ndarray) -> None:
    for emotion in range(8):
        table = drawn[:, :, emotion]
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        frequent = expected >= 5
        chi2 = ((table - expected)[frequent] ** 2 / expected[frequent]).sum()
        cells = frequent.sum()
        assert chi2 < cells + 5 * np.sqrt(2 * cells)


def test_bayes_judge_of_drawn_labels_reaches_the_ceiling(drawn: np.ndarray) -> None:
    best = RULE.joint().argmax(axis=2)
    correct = np.take_along_axis(drawn, best[:, :, None], axis=2).sum()
    assert correct / drawn.sum() == pytest.approx(RULE.ceiling().both, abs=0.012)
    by_scene = drawn.sum(axis=1)[np.arange(16), RULE.joint().sum(axis=1).argmax(axis=1)].sum()
    assert by_scene / drawn.sum() == pytest.approx(RULE.ceiling().scene, abs=0.014)
