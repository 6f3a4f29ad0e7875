"""Fréchet distance against closed forms and torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from uniemo_ray.metrics.frechet import FeatureSums, frechet, frechet_by_emotion


class FeaturesAsPictures(nn.Module):
    """Hands torchmetrics the features themselves."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def two_sets(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(200, 6)) + 0.5


def test_agrees_with_torchmetrics() -> None:
    generated, real = two_sets()
    metric = FrechetInceptionDistance(feature=FeaturesAsPictures(), normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(generated), real=False)
    metric.update(torch.from_numpy(real), real=True)
    found = frechet(FeatureSums.of(generated), FeatureSums.of(real), name="fd_clip")
    assert found.distance == pytest.approx(float(metric.compute()), rel=1e-9)
    assert (found.name, found.generated, found.real) == ("fd_clip", 300, 200)


def test_agrees_with_the_closed_form_of_diagonal_gaussians() -> None:
    first = FeatureSums(11, np.array([0.0, 1.0]), np.diag([4.0, 9.0]) * 10)
    second = FeatureSums(11, np.array([2.0, 1.0]), np.diag([1.0, 16.0]) * 10)
    expected = 2.0**2 + (2 - 1) ** 2 + (3 - 4) ** 2
    assert frechet(first, second, name="fd_clip").distance == pytest.approx(expected, rel=1e-12)


def test_a_set_has_no_distance_to_itself_even_with_fewer_images_than_dimensions() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 20))
    assert frechet(FeatureSums.of(rows), FeatureSums.of(rows), name="fd_clip").distance < 1e-6


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_parts_merge_in_any_order(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(loc=100, size=(40, 3))
    total = FeatureSums.empty(3)
    for part in np.array_split(rng.permutation(40), pieces):
        total = FeatureSums.of(rows[part]).merge(total)
    np.testing.assert_allclose(total.mean, rows.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(total.covariance(), np.cov(rows.T), atol=1e-10)
    running = FeatureSums.empty(3)
    running.update(rows[:7])
    running.update(rows[7:])
    np.testing.assert_allclose(running.covariance(), np.cov(rows.T), atol=1e-10)


def test_merged_sums_are_those_of_older_runs_to_the_last_bit() -> None:
    rng = np.random.default_rng(7)
    total, count, mean, scatter = FeatureSums.empty(5), 0, np.zeros(5), np.zeros((5, 5))
    for size in (3, 0, 17, 1):
        part = FeatureSums.of(rng.normal(loc=50, size=(size, 5)))
        total, both = total.merge(part), count + part.count
        delta = part.mean - mean
        mean = mean + delta * (part.count / both)
        scatter = scatter + part.scatter + np.outer(delta, delta) * (count * part.count / both)
        count = both
    assert total.count == count == 21
    assert np.array_equal(total.mean, mean)
    assert np.array_equal(total.scatter, scatter)


def test_two_empty_parts_merge_to_an_empty_one() -> None:
    nothing = FeatureSums.empty(2).merge(FeatureSums.empty(2))
    assert nothing.count == 0
    assert not nothing.mean.any()
    assert not nothing.scatter.any()


def test_per_emotion_measures_what_both_sides_have() -> None:
    generated, real = two_sets()
    sums = FeatureSums.of(generated), FeatureSums.of(real)
    found = frechet_by_emotion({"awe": sums[0], "fear": sums[0]}, {"awe": sums[1]}, name="fd_clip")
    assert found == {"awe": frechet(*sums, name="fd_clip")}


def test_bad_input_is_refused() -> None:
    one, two = FeatureSums.of(np.ones((1, 2))), FeatureSums.of(np.ones((2, 2)))
    with pytest.raises(ValueError, match="needs two images on each side, got 1"):
        frechet(one, two, name="fd_clip")
    with pytest.raises(ValueError, match="width 3, got 2"):
        frechet(two, FeatureSums.of(np.ones((2, 3))), name="fd_clip")
    with pytest.raises(ValueError, match="non-finite"):
        FeatureSums.of(np.full((2, 2), np.inf))


def test_two_images_have_a_covariance() -> None:
    assert FeatureSums.of([[0.0], [2.0]]).covariance().tolist() == [[2.0]]
