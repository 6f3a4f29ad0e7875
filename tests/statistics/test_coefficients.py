"""Emotional correlation coefficients."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import SENTIMENT
from uniemo_ray.feedback.schema import COEFFICIENTS
from uniemo_ray.statistics.coefficients import (
    CoefficientSums,
    coefficients_by_key,
    mean_absolute_error,
)


def one_hot(*emotions: int) -> np.ndarray:
    return np.eye(8)[list(emotions)]


def test_alpha_is_the_mean_probability_over_images_that_carry_the_attribute() -> None:
    sums = CoefficientSums()
    sums.update(one_hot(0, 0, 7), ["park", "park", None], [["Dog"], ["Dog", "Toy"], ["Dog", "Dog"]])
    table = sums.table()
    assert table.schema.equals(COEFFICIENTS)
    assert table["attribute"].to_pylist() == ["Dog", "Toy", "park"]
    assert table["kind"].to_pylist() == ["object", "object", "scene"]
    assert table["count"].to_pylist() == [3, 1, 2]
    assert table["alpha_amusement"].to_pylist() == pytest.approx([2 / 3, 1, 1])
    assert table["alpha_sadness"].to_pylist() == pytest.approx([1 / 3, 0, 0])


def test_a_scene_and_an_object_of_one_name_stay_apart() -> None:
    sums = CoefficientSums()
    sums.update(one_hot(0, 1), ["stage", None], [[], ["stage"]])
    alphas = coefficients_by_key(sums.table())
    assert alphas["scene", "stage"].argmax() == 0
    assert alphas["object", "stage"].argmax() == 1


@given(st.integers(0, 2**31), st.lists(st.integers(0, 60), max_size=5))
def test_parts_merged_in_any_order_agree_with_numpy(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(8), size=60)
    scenes = [None if k == 4 else f"s{k}" for k in rng.integers(0, 5, size=60)]
    objects = [[f"o{k}" for k in set(rng.integers(0, 4, size=n))] for n in rng.integers(0, 3, size=60)]
    parts = []
    edges = sorted({0, 60, *cuts})
    for a, b in itertools.pairwise(edges):
        part = CoefficientSums()
        part.update(p[a:b], scenes[a:b], objects[a:b])
        parts.append(part)
    rng.shuffle(parts)  # type: ignore[arg-type]
    total = CoefficientSums()
    for part in parts:
        total = total.merge(part)
    alphas = coefficients_by_key(total.table())
    for kind, name in alphas:
        carries = [name == s if kind == "scene" else name in o for s, o in zip(scenes, objects, strict=True)]
        np.testing.assert_allclose(alphas[kind, name], p[carries].mean(axis=0), atol=1e-10)
    assert {n for k, n in alphas if k == "scene"} == set(scenes) - {None}


def test_merge_leaves_its_parts_alone() -> None:
    first, second = CoefficientSums(), CoefficientSums()
    first.update(one_hot(0), ["park"], [[]])
    second.update(one_hot(1), ["park"], [[]])
    assert first.merge(second).table()["count"].to_pylist() == [2]
    assert first.table()["count"].to_pylist() == second.table()["count"].to_pylist() == [1]


def test_a_perfect_judge_finds_the_exact_table() -> None:
    """20,000 images as the rule draws them leave an error of a fraction of a percent."""
    rule, rng = load_rule(), np.random.default_rng(0)
    joint = rule.joint().sum(axis=2)
    drawn = rng.choice(joint.size, size=20_000, p=joint.reshape(-1))
    scenes, objects = np.unravel_index(drawn, joint.shape)
    sums = CoefficientSums()
    sums.update(
        [rule.posterior(s, o) for s, o in zip(scenes, objects, strict=True)],
        [rule.scenes[s] for s in scenes],
        [[rule.objects[o]] for o in objects],
    )
    assert mean_absolute_error(sums.table(), rule.alpha()) < 0.005


def test_the_error_is_a_plain_mean_and_counts_missing_rows() -> None:
    sums = CoefficientSums()
    sums.update(one_hot(0), ["a"], [[]])
    exact = {("scene", "a"): np.full(8, 0.125), ("scene", "b"): np.eye(8)[1]}
    expected = ((0.875 + 7 * 0.125) + 1.0) / 16
    assert mean_absolute_error(sums.table(), exact) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no exact coefficients for 1 attributes"):
        mean_absolute_error(sums.table(), {("scene", "b"): np.eye(8)[1]})


def test_bad_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected probabilities \(1, 8\)"):
        CoefficientSums().update(np.ones((1, 7)), ["a"], [[]])
    with pytest.raises(ValueError, match="not finite"):
        CoefficientSums().update(np.full((1, 8), np.nan), ["a"], [[]])


def test_coefficients_of_two_classes_have_two_columns() -> None:
    first, second = (CoefficientSums(labels=SENTIMENT.labels) for _ in range(2))
    first.update([[0.9, 0.1]], ["park"], [["dog"]])
    second.update([[0.5, 0.5]], ["park"], [None])
    table = first.merge(second).table()
    assert table.column_names == ["attribute", "kind", "count", "alpha_positive", "alpha_negative"]
    np.testing.assert_allclose(coefficients_by_key(table)["scene", "park"], [0.7, 0.3])
    np.testing.assert_allclose(coefficients_by_key(table)["object", "dog"], [0.9, 0.1])
