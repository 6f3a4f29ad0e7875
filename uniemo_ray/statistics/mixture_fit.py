"""How many components an emotion has, and where: k-means on a sample, chosen on held-out images."""

# B batch, K components, N rows of a sample, W width of all members together

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans2
from scipy.special import logsumexp

from uniemo_ray.statistics.emotion_space import MEMBERS
from uniemo_ray.statistics.feature_sample import EmotionSample, FeatureSample
from uniemo_ray.statistics.gaussian_space import GaussianSpace

Array = NDArray[np.float64]

HELD_OUT_EVERY = 5
"""Of a sample, every fifth image decides how many components there are."""
FEWEST_PER_COMPONENT = 8
"""Fewest images of a sample, on average, for a component."""
RESTARTS = 8
"""How often k-means starts anew: from unlucky centres it joins groups that lie apart."""
PRIOR_IMAGES = 4.0
"""How many images' weight the variance of the whole emotion has in that of a component."""


@dataclass(frozen=True, eq=False)
class Centres:
    """Centres of the components of each emotion, by which any image finds its component."""

    gaussian: GaussianSpace
    """Mean and deviation by which features are standardised."""
    centres: dict[int, Array]
    """Emotion index to (K, W), standardised; W joins the members in the order of MEMBERS."""

    def nearest(self, emotion: int, features: Mapping[str, ArrayLike]) -> NDArray[np.int64]:
        """(B,) components of B images of an emotion, whose members are (B, D)."""
        rows, centres = standardised(self.gaussian, emotion, features), self.centres[emotion]
        # |a - b|^2 without the term that is the same for all centres
        distances = np.square(centres).sum(axis=1) - 2 * rows @ centres.T
        return np.asarray(distances.argmin(axis=1), dtype=np.int64)


def standardised(gaussian: GaussianSpace, emotion: int, features: Mapping[str, ArrayLike]) -> Array:
    """Members (B, D) as one (B, W) of mean 0 and deviation 1 in each dimension, over the emotion's images."""
    parts = []
    for member in (name for name in MEMBERS if name in features):
        std = gaussian.std[member][emotion]
        rows = np.asarray(features[member], dtype=np.float64) - gaussian.mean[member][emotion]
        parts.append(rows / np.where(std > 0, std, 1.0))
    return np.concatenate(parts, axis=1)


def fit_centres(
    sample: FeatureSample, gaussian: GaussianSpace, *, candidates: Sequence[int], seed: int
) -> Centres:
    """Centres for each emotion of the sample.

    Args:
        sample: images of each emotion.
        gaussian: moments over all training images.
        candidates: numbers of components to choose from, by the likelihood of held-out images: the smallest
            that is as good as the best within a standard error. A number that leaves less than
            FEWEST_PER_COMPONENT images to a component is left out, unless all are.
        seed: of the first centres.
    """
    centres = {
        emotion: _fit(standardised(gaussian, emotion, part.features), part, candidates, seed)
        for emotion, part in sorted(sample.emotions.items())
    }
    return Centres(gaussian, centres)


def _fit(rows: Array, part: EmotionSample, candidates: Sequence[int], seed: int) -> Array:
    most = max(1, len(part.ids) // FEWEST_PER_COMPONENT)
    possible = [k for k in candidates if k <= most] or [min(min(candidates), len(rows))]
    if len(possible) == 1:
        return _means(rows, possible[0], seed)[0]
    is_held_out = np.arange(len(rows)) % HELD_OUT_EVERY == 0
    seen, unseen = rows[~is_held_out], rows[is_held_out]
    likelihoods = [_likelihood(unseen, seen, *_means(seen, k, seed)) for k in possible]
    return _means(rows, _fewest_as_good(possible, likelihoods), seed)[0]


def _fewest_as_good(numbers: Sequence[int], likelihoods: Sequence[Array]) -> int:
    """The smallest number whose likelihoods (N,) are not worse than the best one's by a standard error."""
    best = max(likelihoods, key=lambda logs: float(logs.mean()))
    as_good = []
    for number, logs in zip(numbers, likelihoods, strict=True):
        worse = best - logs
        if worse.mean() <= worse.std() / np.sqrt(len(worse)):
            as_good.append(number)
    return min(as_good)


def _means(rows: Array, k: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Centres (K', W) of the best of RESTARTS k-means, without empty ones, and each row's component (N,)."""
    if k == 1:
        return rows.mean(axis=0, keepdims=True), np.zeros(len(rows), dtype=np.int64)
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty components, which are left out
        tries = [kmeans2(rows, k, minit="++", rng=rng) for _ in range(RESTARTS)]
    centres, labels = min(tries, key=lambda found: float(np.square(rows - found[0][found[1]]).sum()))
    used, labels = np.unique(labels, return_inverse=True)
    return np.asarray(centres[used]), labels.astype(np.int64)


def _likelihood(unseen: Array, seen: Array, centres: Array, labels: NDArray[np.int64]) -> Array:
    """Log-likelihood of each row under the diagonal mixture that the components of other rows make."""
    logs = []
    for component, centre in enumerate(centres):
        own = seen[labels == component]
        variance = shrunk_variance(np.square(own - centre).sum(axis=0), len(own), 1.0)
        log_density = -0.5 * (np.square(unseen - centre) / variance + np.log(2 * np.pi * variance)).sum(
            axis=1
        )
        logs.append(np.log(len(own) / len(seen)) + log_density)
    return np.asarray(logsumexp(np.stack(logs), axis=0), dtype=np.float64)


def shrunk_variance(squares: ArrayLike, count: int, whole: ArrayLike) -> Array:
    """Variance of a component: its own, pulled to the whole emotion's by PRIOR_IMAGES images.

    Args:
        squares: (D,) sum of squared deviations from the component's mean.
        count: images of the component.
        whole: (D,) variance of the emotion.
    """
    return (np.asarray(squares) + PRIOR_IMAGES * np.asarray(whole)) / (count + PRIOR_IMAGES)
