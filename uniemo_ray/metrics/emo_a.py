"""Emo-A: how many generated images evoke the emotion they were made for."""

# M images, C emotions

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.data.emosketch.classes import ExactRule
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.metrics.accuracy import AccuracyCounts

Judge = Literal["emo_a", "emo_a_clip", "emo_a_exact"]


@dataclass(frozen=True)
class EmoA:
    """Shares in [0, 1] over `count` generated images."""

    name: Judge
    """`emo_a` by the public judge, `emo_a_clip` by the run's own emotion classifier on its own CLIP,
    `emo_a_exact` by the exact posterior."""
    top1: float
    """Share whose likeliest emotion is the intended one."""
    standard_error: float
    """Binomial standard error of `top1`."""
    mean_probability: float
    """Mean probability of the intended emotion."""
    two_class: float | None
    """Share whose more probable valence, summed over its emotions, is the intended one, as the published
    script counts; not defined (None) where the emotions have no valences."""
    per_emotion: dict[str, float]
    """`top1` of each intended emotion."""
    count: int


def emotion_counts(intended: Sequence[str], probabilities: ArrayLike, *, space: LabelSpace) -> AccuracyCounts:
    """What some images say about Emo-A by a classifier; counts of several parts merge.

    Args:
        intended: M emotion names.
        probabilities: (M, C) of the classifier, in the order of the label space.
        space: the C emotions.

    Raises:
        ValueError: for an unknown emotion or another shape.
    """
    counts = AccuracyCounts(space)
    counts.update([space.position(emotion) for emotion in intended], probabilities)
    return counts


def exact_counts(
    intended: Sequence[str], scenes: ArrayLike, objects: ArrayLike, *, rule: ExactRule, space: LabelSpace
) -> AccuracyCounts:
    """The same by EmoSketch's own rule: the posterior at the scene and object that a recogniser sees.

    Args:
        intended: M emotion names.
        scenes: (M,) recognised scenes, indices into the rule's.
        objects: (M,) recognised objects, indices into the rule's.
        rule: the labelling rule.
        space: its C emotions.

    Raises:
        ValueError: for an unknown emotion, scene or object, or unequal lengths.
    """
    return emotion_counts(intended, exact_probabilities(scenes, objects, rule=rule), space=space)


def emo_a(counts: AccuracyCounts, *, name: Judge) -> EmoA:
    """Emo-A of the images that were counted.

    Args:
        counts: from `emotion_counts` or `exact_counts`.
        name: `emo_a` for the public judge, `emo_a_clip` for the run's own classifier, `emo_a_exact` for the
            exact rule.

    Raises:
        ValueError: for no image.
    """
    if not counts.confusion.any():
        raise ValueError(f"{name} of no image: nothing was generated")
    found = counts.result()
    return EmoA(
        name=name,
        top1=found.top1,
        standard_error=found.standard_error,
        mean_probability=found.mean_probability,
        two_class=found.two_class_sum,
        per_emotion=found.per_class,
        count=found.count,
    )


def exact_probabilities(scenes: ArrayLike, objects: ArrayLike, *, rule: ExactRule) -> NDArray[np.float64]:
    """Posterior (M, C) of the rule for each recognised (scene, object).

    Raises:
        ValueError: for an index outside the rule, or unequal lengths.
    """
    pairs = np.stack([np.asarray(scenes, dtype=np.int64), np.asarray(objects, dtype=np.int64)], axis=1)
    limits = (len(rule.scenes), len(rule.objects))
    if ((pairs < 0) | (pairs >= limits)).any():
        raise ValueError(f"expected scenes below {limits[0]} and objects below {limits[1]}, got others")
    distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
    table = [rule.posterior(int(scene), int(object_)) for scene, object_ in distinct]
    return np.asarray(table, dtype=np.float64).reshape(len(distinct), -1)[inverse.reshape(-1)]
