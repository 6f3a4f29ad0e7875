"""The linear probe against Newton's method and a plain sum, and its search for a penalty."""

import numpy as np
import pytest
import torch

from uniemo_ray.baselines.understanding.linear_probe import fit, halve, objective, search
from uniemo_ray.config.baselines import LinearProbeConfig

CLASSES, WIDTH = 3, 4


def problem(count: int = 60, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    means = np.random.default_rng(9).normal(0, 1, (CLASSES, WIDTH))
    return means[labels] + rng.normal(0, 1, (count, WIDTH)), labels


def plain_loss(weight, bias, features, labels, l2):
    """The published objective by torch, image by image."""
    logits = torch.from_numpy(features) @ weight.T + bias
    total = sum(
        torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, labels.tolist(), strict=True)
    )
    return total + l2 / 2 * (weight**2).sum()


def newton(features, labels, l2, steps=50):
    """The minimum by second derivatives, which torch takes of the plain sum."""
    flat = torch.zeros(CLASSES * (WIDTH + 1), dtype=torch.float64)

    def loss(flat):
        weight = flat[: CLASSES * WIDTH].view(CLASSES, WIDTH)
        return plain_loss(weight, flat[CLASSES * WIDTH :], features, labels, l2)

    for _ in range(steps):
        gradient = torch.func.grad(loss)(flat)
        hessian = torch.func.hessian(loss)(flat)
        # equal shifts of all intercepts change nothing, so the inverse is that of the rest
        flat = flat - torch.linalg.pinv(hessian, hermitian=True, rtol=1e-12) @ gradient
    return flat[: CLASSES * WIDTH].view(CLASSES, WIDTH).numpy(), flat[CLASSES * WIDTH :].numpy()


@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_the_probe_is_the_minimum_that_newton_finds(l2):
    features, labels = problem()
    probe = fit(features, labels, classes=CLASSES, l2=l2)
    weight, bias = newton(features, labels, l2)
    np.testing.assert_allclose(probe.weight, weight, atol=1e-5)
    centred = [values - values.mean() for values in (probe.bias, bias)]
    np.testing.assert_allclose(*centred, atol=1e-5)
    np.testing.assert_allclose(
        probe.classifier()(torch.from_numpy(features).float()), probe.logits(features), atol=1e-5
    )


def test_value_and_gradient_are_those_of_the_plain_sum():
    features, labels = problem()
    layer = np.random.default_rng(1).normal(0, 1, (CLASSES, WIDTH + 1))
    found, gradient = objective(layer.reshape(-1), features, labels, classes=CLASSES, l2=0.7)
    own = torch.from_numpy(layer).requires_grad_()
    loss = plain_loss(own[:, :-1], own[:, -1], features, labels, 0.7)
    loss.backward()
    assert found == pytest.approx(float(loss.detach()), abs=1e-9)
    np.testing.assert_allclose(gradient.reshape(layer.shape), own.grad, atol=1e-9)


def test_the_search_ends_at_eight_penalties_a_decade_around_the_best():
    asked = []

    def accuracy(l2):
        asked.append(l2)
        return -abs(np.log10(l2) - 0.6)

    found = halve((1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6), accuracy, steps_per_decade=8)
    best = max(found, key=found.get)
    assert abs(np.log10(best) - 0.6) <= 1 / 16 + 1e-9
    order = sorted(found)
    at = order.index(best)
    gaps = np.diff(np.log10(order[at - 1 : at + 2]))
    np.testing.assert_allclose(gaps, 1 / 8)
    assert len(asked) == len(set(asked)) == len(found) < 20


def test_the_best_penalty_may_lie_at_an_end():
    found = halve((1.0, 100.0), lambda l2: -l2, steps_per_decade=1)
    assert max(found, key=found.get) == 1.0
    assert sorted(found) == pytest.approx([1.0, 10.0, 100.0])


def test_validation_chooses_the_penalty():
    training, validation = problem(40), problem(200, seed=5)
    config = LinearProbeConfig(l2=(1e-3, 1.0, 1e3), steps_per_decade=2)
    found = search(training, validation, classes=CLASSES, config=config)
    again = fit(*training, classes=CLASSES, l2=found.probe.l2)
    np.testing.assert_allclose(found.probe.weight, again.weight)
    hits = (again.logits(validation[0]).argmax(axis=1) == validation[1]).mean()
    assert hits == max(found.accuracies.values()) == found.accuracies[found.probe.l2]


def test_of_equal_penalties_the_largest_wins():
    easy = np.eye(CLASSES, WIDTH)[[0, 1, 2] * 4] * 10, np.array([0, 1, 2] * 4)
    found = search(easy, easy, classes=CLASSES, config=LinearProbeConfig(l2=(0.1, 1.0), steps_per_decade=1))
    assert found.probe.l2 == 1.0
    assert set(found.accuracies.values()) == {1.0}
