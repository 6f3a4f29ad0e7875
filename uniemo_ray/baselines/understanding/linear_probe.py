"""Linear probe: multinomial logistic regression by L-BFGS, its L2 penalty chosen on the validation split."""

# M images, E feature width, C classes

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.baselines.understanding.features import FeatureClassifier
from uniemo_ray.config.baselines import LinearProbeConfig

Values = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """A fitted layer.

    Attributes:
        weight: (C, E).
        bias: (C,).
        l2: the penalty that it was fitted with.
        loss: the objective at its end.
    """

    weight: Values
    bias: Values
    l2: float
    loss: float

    def logits(self, features: Values) -> Values:
        """(M, C) of features (M, E)."""
        return features @ self.weight.T + self.bias

    def classifier(self) -> FeatureClassifier:
        """In fp32, as it is stored."""
        weight, bias = (torch.tensor(part, dtype=torch.float32) for part in (self.weight, self.bias))
        return FeatureClassifier(weight, bias, is_normalised=False)


@dataclass(frozen=True)
class Search:
    """The probe that is best on the validation split, and the accuracy of every penalty that was tried."""

    probe: Probe
    accuracies: dict[float, float]


def objective(
    flat: Values, features: Values, labels: Labels, *, classes: int, l2: float
) -> tuple[float, Values]:
    """Summed cross-entropy plus l2 / 2 times the squared weights, and its gradient.

    Args:
        flat: (C * (E + 1),), weight and bias of each class.
        features: (M, E).
        labels: (M,).
        classes: C.
        l2: weight of the penalty.
    """
    layer = flat.reshape(classes, -1)
    weight, bias = layer[:, :-1], layer[:, -1]
    logits = features @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    total = odds.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(np.log(total).sum() - logits[rows, labels].sum() + 0.5 * l2 * np.square(weight).sum())
    residual = odds / total
    residual[rows, labels] -= 1
    gradient = np.concatenate([residual.T @ features + l2 * weight, residual.sum(axis=0)[:, None]], axis=1)
    return loss, gradient.reshape(-1)


def fit(
    features: Values,
    labels: Labels,
    *,
    classes: int,
    l2: float,
    iterations: int = 1000,
) -> Probe:
    """The layer of least `objective`.

    Args:
        features: (M, E).
        labels: (M,).
        classes: C.
        l2: weight of the penalty.
        iterations: of L-BFGS, at most.
    """
    from scipy.optimize import minimize  # a second of imports, for the step that fits alone

    found = minimize(
        lambda flat: objective(flat, features, labels, classes=classes, l2=l2),
        np.zeros(classes * (features.shape[1] + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxfun": 2 * iterations, "gtol": 1e-7, "ftol": 1e-12},
    )
    layer = found.x.reshape(classes, -1)
    return Probe(layer[:, :-1].copy(), layer[:, -1].copy(), l2, float(found.fun))


def search(
    training: tuple[Values, Labels],
    validation: tuple[Values, Labels],
    *,
    classes: int,
    config: LinearProbeConfig,
) -> Search:
    """Fit with the penalties of the config, then between the best one's neighbours.

    Of penalties that are equally good the largest wins.

    Args:
        training: features (M, E) and labels (M,).
        validation: the same of the split that chooses.
        classes: C.
        config: penalties, resolution and iterations.
    """
    probes: dict[float, Probe] = {}

    def accuracy(l2: float) -> float:
        if l2 not in probes:
            probes[l2] = fit(*training, classes=classes, l2=l2, iterations=config.iterations)
        return float(np.mean(probes[l2].logits(validation[0]).argmax(axis=1) == validation[1]))

    accuracies = halve(config.l2, accuracy, steps_per_decade=config.steps_per_decade)
    best = max(accuracies, key=lambda l2: (accuracies[l2], l2))
    return Search(probes[best], accuracies)


def halve(
    penalties: Sequence[float], accuracy: Callable[[float], float], *, steps_per_decade: int
) -> dict[float, float]:
    """Accuracy of the given penalties and of those that halve the interval around the best, again and again.

    Args:
        penalties: in rising order.
        accuracy: of one penalty.
        steps_per_decade: at this resolution the search ends.
    """
    found = {l2: accuracy(l2) for l2 in penalties}
    while True:
        order = sorted(found)
        at = order.index(max(found, key=lambda l2: (found[l2], l2)))
        around = order[max(0, at - 1) : at + 2]
        middles = [
            math.sqrt(low * high)
            for low, high in pairwise(around)
            if math.log10(high / low) > 1 / steps_per_decade + 1e-9
        ]
        if not middles:
            return found
        found |= {l2: accuracy(l2) for l2 in middles}
