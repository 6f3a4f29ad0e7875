"""Accuracy counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from uniemo_ray.emotions import EKMAN, EMOTIONS, MIKELS, SENTIMENT
from uniemo_ray.metrics.accuracy import Accuracy, AccuracyCounts, coarsen


def measure(labels: list[int], p: np.ndarray) -> Accuracy:
    counts = AccuracyCounts()
    counts.update(labels, p)
    return counts.result()


def test_a_table_by_hand() -> None:
    p = np.full((4, 8), 0.01)
    p[0, 0] = p[1, 1] = p[2, 6] = 0.9  # amusement right; awe where contentment was meant; fear for anger
    p[1, 2] = 0.05
    p[3, 7] = 0.93
    found = measure([0, 2, 4, 7], p)
    assert (found.top1, found.top2, found.two_class, found.count) == (0.5, 0.75, 1.0, 4)
    assert found.per_class == {"amusement": 1.0, "contentment": 0.0, "anger": 0.0, "sadness": 1.0}
    assert found.confusion[2][1] == found.confusion[4][6] == 1
    assert sum(map(sum, found.confusion)) == 4
    assert found.mean_probability == pytest.approx((0.9 + 0.05 + 0.01 + 0.93) / 4)
    assert found.standard_error == pytest.approx(0.25)


def test_two_class_counts_the_valence_of_the_likeliest_emotion() -> None:
    assert measure([0, 0], np.eye(8)[[3, 4]]).two_class == 0.5


def test_equal_probabilities_go_to_the_first_emotion() -> None:
    found = measure([0, 1, 2], np.full((3, 8), 0.125))
    assert (found.top1, found.top2) == (1 / 3, 2 / 3)


def test_agrees_with_torchmetrics() -> None:
    import torch

    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 8, size=500), rng.dirichlet(np.ones(8), size=500)
    found, t, q = measure(labels.tolist(), p), torch.from_numpy(labels), torch.from_numpy(p)
    for k, value in ((1, found.top1), (2, found.top2)):
        expected = multiclass_accuracy(q, t, num_classes=8, top_k=k, average="micro")
        assert value == pytest.approx(float(expected))
    np.testing.assert_array_equal(found.confusion, multiclass_confusion_matrix(q, t, num_classes=8).numpy())
    per_class = multiclass_accuracy(q, t, num_classes=8, average="none").tolist()
    assert [found.per_class[e] for e in EMOTIONS] == pytest.approx(per_class)


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_parts_merge_in_any_order(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(0, 8, size=30), rng.dirichlet(np.ones(8), size=30)
    total = AccuracyCounts()
    for rows in np.array_split(rng.permutation(30), pieces):
        part = AccuracyCounts()
        part.update(labels[rows], p[rows])
        total = part.merge(total)
    merged, whole = total.result(), measure(labels.tolist(), p)
    assert merged.confusion == whole.confusion
    assert merged.top2 == whole.top2
    assert merged.mean_probability == pytest.approx(whole.mean_probability, abs=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        AccuracyCounts().result()
    with pytest.raises(ValueError, match=r"expected probabilities \(1, 8\)"):
        measure([0], np.ones((1, 6)))
    with pytest.raises(ValueError, match="labels in"):
        measure([8], np.ones((1, 8)))
    with pytest.raises(ValueError, match="finite"):
        measure([0], np.full((1, 8), np.inf))


def test_summed_probabilities_may_outvote_the_likeliest_emotion() -> None:
    p = np.array([[0.3, 0, 0, 0, 0.25, 0.25, 0.2, 0]])  # amusement leads, 0.7 is negative
    happy, sad = measure([0], p), measure([7], p)
    assert (happy.two_class, happy.two_class_sum) == (1.0, 0.0)
    assert (sad.two_class, sad.two_class_sum) == (0.0, 1.0)


def test_six_classes_and_one_without_valence() -> None:
    counts = AccuracyCounts(EKMAN)
    p = np.full((3, 6), 0.05)
    p[0, 5] = p[1, 5] = p[2, 3] = 0.75  # surprise, surprise, joy
    counts.update([5, 3, 3], p)
    found = counts.merge(AccuracyCounts(EKMAN)).result()
    assert found.top1 == pytest.approx(2 / 3)
    assert found.per_class == {"joy": 0.5, "surprise": 1.0}
    assert len(found.confusion) == 6
    # Surprise has no valence; of the two pictures of joy one is taken for it, and its rest is negative.
    assert (found.two_class, found.two_class_sum) == (0.5, 0.5)
    with pytest.raises(ValueError, match=r"expected probabilities \(1, 6\)"):
        counts.update([0], np.full((1, 8), 0.125))


def test_two_classes_are_their_own_valence() -> None:
    counts = AccuracyCounts(SENTIMENT)
    counts.update([0, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    found = counts.result()
    assert found.top1 == found.two_class == found.two_class_sum == pytest.approx(2 / 3)


def test_probabilities_of_eight_emotions_become_two() -> None:
    p = np.arange(8.0)[None] / 28
    np.testing.assert_allclose(coarsen(p, MIKELS, SENTIMENT), [[6 / 28, 22 / 28]])
    np.testing.assert_array_equal(coarsen(p, MIKELS, MIKELS), p)
    for source, target in ((EKMAN, SENTIMENT), (MIKELS, EKMAN), (SENTIMENT, MIKELS)):
        with pytest.raises(ValueError, match="say nothing certain about the classes"):
            coarsen(np.ones((1, len(source.labels))), source, target)


def test_batches_add_up() -> None:
    rng = np.random.default_rng(1)
    labels, p = rng.integers(0, 8, size=30).tolist(), rng.dirichlet(np.ones(8), size=30)
    counts, first, second = AccuracyCounts(), AccuracyCounts(), AccuracyCounts()
    counts.update(labels[:11], p[:11])
    counts.update(labels[11:], p[11:])
    first.update(labels[:11], p[:11])
    second.update(labels[11:], p[11:])
    whole = measure(labels, p)
    for found in (counts.result(), first.merge(second).result()):
        assert found.mean_probability == pytest.approx(whole.mean_probability, abs=1e-12)
        assert (found.top2, found.two_class, found.two_class_sum) == (
            whole.top2,
            whole.two_class,
            whole.two_class_sum,
        )
    assert 0 < whole.two_class_sum < 1


def test_of_equally_likely_valences_positive_wins() -> None:
    p = np.eye(8)[[0]] / 2 + np.eye(8)[[7]] / 2  # amusement and sadness
    assert (measure([0], p).two_class_sum, measure([7], p).two_class_sum) == (1.0, 0.0)


def test_a_label_without_valence_is_no_negative_one() -> None:
    counts = AccuracyCounts(EKMAN)
    p = np.zeros((1, 6))
    p[0, 3], p[0, 5], p[0, 0] = 0.3, 0.6, 0.1  # joy, surprise, anger
    counts.update([3], p)
    assert counts.result().two_class_sum == 1.0


def test_sums_of_single_precision_probabilities_are_exact() -> None:
    p = np.random.default_rng(2).dirichlet(np.ones(8), size=5000).astype(np.float32)
    expected = p[:, 3].astype(np.float64).mean()
    assert measure([3] * 5000, p).mean_probability == pytest.approx(expected, rel=1e-12)
