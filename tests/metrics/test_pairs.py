"""Pairs of images of one emotion."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.metrics.pairs import draw_pairs, emotion_pairs, mean_over_pairs, pairs_by_number

IDS = [f"i{n:03d}" for n in range(60)]
LABELS = ["awe" if n % 3 else "fear" for n in range(60)]


@given(st.integers(0, 40), st.integers(1, 900), st.integers(0, 100))
def test_pairs_are_distinct_ordered_and_complete_when_few(count: int, pairs: int, seed: int) -> None:
    drawn = draw_pairs(count, pairs=pairs, rng=np.random.default_rng(seed))
    everything = set(itertools.combinations(range(count), 2))
    assert len(drawn) == min(pairs, len(everything))
    found = {(int(a), int(b)) for a, b in drawn}
    assert len(found) == len(drawn)
    assert found <= everything


def test_pairs_of_very_many_images_are_exact() -> None:
    count = 3_000_000
    drawn = draw_pairs(count, pairs=5000, rng=np.random.default_rng(0))
    assert (drawn[:, 0] >= 0).all()
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert (drawn[:, 1] < count).all()
    assert abs(drawn.mean() / count - 0.5) < 0.02


@pytest.mark.parametrize("j", [1, 2, 3, 1000, 94_906_267, 200_000_001, 2_900_000_001])
def test_pair_numbers_are_exact_where_floats_are_not(j: int) -> None:
    first = j * (j - 1) // 2
    pairs = pairs_by_number(np.array([first, first + j - 1, first + j], dtype=np.int64))
    assert pairs.tolist() == [[0, j], [j - 1, j], [0, j + 1]]


def test_pairs_stay_within_one_emotion_and_do_not_depend_on_row_order() -> None:
    drawn = emotion_pairs(IDS, LABELS, pairs=30, seed=1)
    named = {e: [{IDS[a], IDS[b]} for a, b in p] for e, p in drawn.items()}
    assert list(drawn) == ["awe", "fear"]
    assert all(LABELS[i] == emotion for emotion, p in drawn.items() for i in p.reshape(-1))
    order = np.random.default_rng(0).permutation(60)
    ids, labels = [IDS[i] for i in order], [LABELS[i] for i in order]
    again = emotion_pairs(ids, labels, pairs=30, seed=1)
    assert {e: [{ids[a], ids[b]} for a, b in p] for e, p in again.items()} == named
    assert not np.array_equal(emotion_pairs(IDS, LABELS, pairs=30, seed=2)["awe"], drawn["awe"])


def test_the_mean_is_over_pairs_and_then_over_emotions() -> None:
    values = np.arange(60.0)
    found = mean_over_pairs(
        "gap", IDS, LABELS, distance=lambda a, b: np.abs(values[a] - values[b]), pairs=10_000, seed=0
    )
    by_hand = {
        e: np.mean([abs(a - b) for a, b in itertools.combinations(np.flatnonzero(np.array(LABELS) == e), 2)])
        for e in ("awe", "fear")
    }
    assert found.per_emotion == pytest.approx(by_hand)
    assert found.mean == pytest.approx((by_hand["awe"] + by_hand["fear"]) / 2)
    assert found.pairs == 40 * 39 // 2 + 20 * 19 // 2


def test_the_standard_error_tells_how_the_mean_scatters() -> None:
    """Over fresh draws of images the mean scatters as the jackknife says; pairs are no free sample."""
    ids, labels = [f"{n}" for n in range(40)], ["awe"] * 40
    rng, means, errors = np.random.default_rng(0), [], []
    for _ in range(200):
        values = rng.normal(size=40)
        found = mean_over_pairs(
            "gap", ids, labels, distance=lambda a, b, v=values: np.square(v[a] - v[b]), pairs=10_000, seed=0
        )
        means.append(found.mean)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_emotions_with_one_image_are_named_and_left_out() -> None:
    found = mean_over_pairs(
        "gap", ["a", "b", "c"], ["awe", "awe", "fear"], distance=lambda a, b: np.ones(len(a)), pairs=9, seed=0
    )
    assert found.without_pairs == ("fear",)
    assert found.per_emotion == {"awe": 1.0}
    assert found.standard_error is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="two images of some emotion"):
        mean_over_pairs("gap", ["a"], ["awe"], distance=lambda a, b: np.ones(len(a)), pairs=9, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        mean_over_pairs(
            "gap", ["a", "b"], ["awe"] * 2, distance=lambda a, b: np.full(len(a), np.nan), pairs=9, seed=0
        )
    with pytest.raises(ValueError, match="distinct ids"):
        emotion_pairs(["a", "a"], ["awe", "awe"], pairs=9, seed=0)


def jackknife(pairs: np.ndarray, values: np.ndarray) -> float:
    """Variance of the mean squared gap over pairs, by leaving out one image after the other."""
    images = sorted(set(pairs.reshape(-1).tolist()))
    kept = [[(values[a] - values[b]) ** 2 for a, b in pairs if out not in (a, b)] for out in images]
    left = np.array([np.mean(gaps) for gaps in kept])
    return float((len(images) - 1) / len(images) * np.square(left - left.mean()).sum())


@pytest.mark.parametrize("pairs", [99, 5], ids=["all pairs", "some pairs"])
def test_the_standard_error_is_the_jackknife_over_the_images_of_each_emotion(pairs: int) -> None:
    values = np.array([0.0, 1.0, 3.0, 7.0, 2.0, 2.5, 5.0])
    ids, labels = list("abcdefg"), ["awe"] * 4 + ["fear"] * 3
    found = mean_over_pairs(
        "gap", ids, labels, distance=lambda a, b: np.square(values[a] - values[b]), pairs=pairs, seed=0
    )
    drawn = emotion_pairs(ids, labels, pairs=pairs, seed=0)
    assert len(drawn["awe"]) == min(pairs, 6)
    expected = np.sqrt(sum(jackknife(own, values) for own in drawn.values())) / 2
    assert found.standard_error == pytest.approx(expected, rel=1e-12)
    assert found.name == "gap"


def test_the_seed_chooses_the_pairs_that_are_measured() -> None:
    def mean(seed: int) -> float:
        return mean_over_pairs(
            "gap", IDS, LABELS, distance=lambda a, b: a * 61.0 + b, pairs=5, seed=seed
        ).mean

    assert mean(0) == mean(0)
    assert mean(0) != mean(1)


def test_emotions_draw_from_streams_of_their_own() -> None:
    labels = ["awe"] * 30 + ["fear"] * 30
    drawn = emotion_pairs(IDS, labels, pairs=20, seed=0)
    assert not np.array_equal(drawn["awe"], drawn["fear"] - 30)
