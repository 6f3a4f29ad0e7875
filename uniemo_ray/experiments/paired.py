"""The difference of two arms with its 95 % interval, paired by seed and test image."""

# S seeds, M test images (1 where a metric is one number per seed), R resamples

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 2000
MOST_SEEDS = 1000
"""Numbers of seeds above this are not worth naming."""
_ROWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Variance:
    """Variance components of a table of paired differences (S, M), crossed: every seed sees every image."""

    seed: float
    """Between seeds, beyond what single images explain."""
    image: float
    """Between test images, the same in all seeds."""
    rest: float
    """Of a single image in a single seed."""
    of_mean: float
    """Variance of the mean of the table."""
    freedom: float
    """Degrees of freedom of `of_mean` (Satterthwaite)."""

    def of_mean_with(self, seeds: int, images: int) -> float:
        """Variance of the mean that another number of seeds would have on so many images."""
        return self.seed / seeds + self.image / images + self.rest / (seeds * images)


@dataclass(frozen=True)
class Difference:
    """Mean of a paired difference and its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    images: int
    """Test images that pair the arms, 1 for a metric that is one number per seed."""
    seeds_needed: int | None
    """Seeds with which an interval around this mean would leave out 0; None if 1,000 would not do."""


def compare(left: Values, right: Values, *, random_seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """How much `left` is above `right`, paired.

    The interval is that of a bootstrap over seeds and, crossed with them, over test images. With few seeds
    such a bootstrap is too narrow, so its quantiles are stretched about the mean: to the unbiased variance of
    a crossed design, and by Student's t with Satterthwaite's degrees of freedom.

    Args:
        left: (S, M) values of one arm, by seed and test image; (S, 1) for one number per seed.
        right: (S, M) values of the other arm, with the same seeds and images.
        random_seed: of the resampling.
        resamples: R.

    Raises:
        ValueError: tables of different shapes, or fewer than two seeds.
    """
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(
            f"expected two tables of equal shape (seeds, images), got {left.shape} and {right.shape}"
        )
    table = np.asarray(left, np.float64) - np.asarray(right, np.float64)  # (S, M)
    variance, mean = components(table), float(table.mean())
    spread = math.sqrt(variance.of_mean)
    drawn = resampled_means(table, random_seed=random_seed, resamples=resamples) - mean
    drawn_spread = float(drawn.std())
    low = high = 0.0
    if spread and drawn_spread:
        tail = (1 - LEVEL) / 2
        stretch = spread / drawn_spread * t_quantile(variance.freedom) / NormalDist().inv_cdf(1 - tail)
        low, high = (float(q) * stretch for q in np.quantile(drawn, [tail, 1 - tail]))
    seeds, images = table.shape
    needed = seeds_needed(mean, variance, images=images)
    return Difference(mean, mean + low, mean + high, seeds, images, needed)


def components(table: Values) -> Variance:
    """Variance components of a table (S, M) by the two-way analysis of variance.

    Raises:
        ValueError: fewer than two seeds, which say nothing about the spread between seeds.
    """
    seeds, images = table.shape
    if seeds < 2:
        raise ValueError(f"an interval needs two seeds or more, got {seeds}")
    by_seed, by_image, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = images * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    if images == 1:
        return Variance(of_seeds, 0.0, 0.0, of_seeds / seeds, seeds - 1)
    of_images = seeds * float(((by_image - mean) ** 2).sum()) / (images - 1)
    rest_freedom = (seeds - 1) * (images - 1)
    rest = float(((table - by_seed[:, None] - by_image[None] + mean) ** 2).sum()) / rest_freedom
    total = max(of_seeds + of_images - rest, of_seeds, of_images)
    squares = of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1) + rest**2 / rest_freedom
    return Variance(
        seed=max(0.0, (of_seeds - rest) / images),
        image=max(0.0, (of_images - rest) / seeds),
        rest=rest,
        of_mean=total / (seeds * images),
        # a difference of mean squares would have next to none where they cancel
        freedom=max(total**2 / squares if squares else 0.0, float(min(seeds, images) - 1)),
    )


def resampled_means(table: Values, *, random_seed: int, resamples: int) -> Values:
    """Means (R,) of the table with its seeds and its images drawn anew, each with replacement."""
    seeds, images = table.shape
    generator = np.random.default_rng(random_seed)
    found, at_once = [], max(1, _ROWS_AT_ONCE // max(images, 1))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)  # (R, S)
        of_image = generator.multinomial(images, np.full(images, 1 / images), size=count)  # (R, M)
        found.append(((of_seed @ table) * of_image).sum(axis=1) / (seeds * images))
    return np.concatenate(found)


def seeds_needed(mean: float, variance: Variance, *, images: int) -> int | None:
    """The fewest seeds whose interval around this mean would leave out 0, on so many test images."""

    def tells(seeds: int) -> bool:
        spread = math.sqrt(variance.of_mean_with(seeds, images))
        return t_quantile(seeds - 1) * spread < abs(mean)

    if not mean or not tells(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # fewer seeds never tell more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return high


def mean_interval(values: Values) -> tuple[float, float, float]:
    """Mean of one number per seed (S,), and the ends of its 95 % interval by Student's t."""
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, mean, mean
    half = t_quantile(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half


def t_quantile(freedom: float) -> float:
    """The factor that makes a two-sided 95 % interval out of a standard error."""
    found: Any = stdtrit(freedom, 1 - (1 - LEVEL) / 2)
    return float(found)
