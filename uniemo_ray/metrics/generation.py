"""All metrics of one set of images (section 6), each under its true name."""

# M images, C emotions, E CLIP joint width

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.data.images import to_unit_range
from uniemo_ray.metrics.emo_a import EmoA, emo_a, emo_a_exact
from uniemo_ray.metrics.frechet import Features, FeatureSums, frechet, frechet_by_emotion
from uniemo_ray.metrics.pairs import Ints, PairMean, emotion_pairs
from uniemo_ray.metrics.perceptual import has_alexnet, lpips_alex, lpips_tiny
from uniemo_ray.metrics.pictures import Pictures
from uniemo_ray.metrics.recogniser import Recogniser, recognise
from uniemo_ray.metrics.sem_c import sem_c
from uniemo_ray.metrics.sem_d import sem_d

Floats = NDArray[np.float32]
BATCH = 64
"""Pictures in memory at a time."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what was measured on each; all columns have M rows."""

    image_ids: Sequence[str]
    emotions: Sequence[str]
    """Intended emotion, or the label of real images."""
    pictures: Pictures
    """At least those of `needed_rows`."""
    probabilities: Floats
    """(M, C) by the section-2 classifier."""
    scene_probability: Floats
    """(M,) of the likeliest scene; NaN without scene names."""
    object_probability: Floats
    """(M,) of the likeliest object; NaN without object names."""
    features: Floats
    """(M, E) frozen CLIP features, unnormalised."""
    inception: Floats | None = None
    """(M, 2048) Inception-v3 features, when the user has its weights."""
    judged: NDArray[np.float64] | None = None
    """(M, 2) probabilities of the likeliest scene and object by both ResNet-50, if the user has them."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What a set of images is measured against and with."""

    real: Mapping[str, FeatureSums]
    """CLIP features of real images by emotion."""
    recogniser: Recogniser | None
    """Judge of EmoSketch pictures; without one there is no exact Emo-A and no `lpips_tiny`."""
    clip: str
    """Name of the CLIP behind the features."""
    pretrained: str | None
    pairs: int
    """Largest number of pairs per emotion."""
    seed: int
    inception: Mapping[str, FeatureSums] | None = None
    """Inception-v3 features of real images by emotion."""
    weights_dir: str | None = None
    """Folder with the weights of AlexNet, perhaps."""


@dataclass(frozen=True, kw_only=True)
class SetMetrics:
    """Metrics of one set of images; None where a metric was not measured.

    The report's `GenerationMetrics` says what each of them means.
    """

    images: int
    emo_a: float
    emo_a_probability: float
    emo_a_two_class: float
    sem_c_clip: float | None = None
    sem_c: float | None = None
    sem_d: float | None = None
    sem_d_clip: float | None = None
    lpips_tiny: float | None = None
    lpips_alex: float | None = None
    emo_a_exact: float | None = None
    fd_clip: float
    fid: float | None = None
    standard_errors: dict[str, float]
    """Metric to standard error."""
    per_emotion: dict[str, dict[str, float]]
    """Emotion to metric to value."""

    def to_dict(self) -> dict[str, Any]:
        """The measured metrics as plain JSON values, keyed by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def needed_rows(image_ids: Sequence[str], emotions: Sequence[str], yardstick: Yardstick) -> Ints:
    """Sorted rows (B,) of the images whose pixels `measure_images` looks at, of M ids and emotions.

    The recogniser looks at each. LPIPS by published weights looks at the drawn pairs, at most
    2 `pairs` images of each emotion however many there are. All else follows from features.
    """
    if yardstick.recogniser is not None:
        return np.arange(len(image_ids), dtype=np.int64)
    if not has_alexnet(yardstick.weights_dir):
        return np.zeros(0, dtype=np.int64)
    drawn = emotion_pairs(image_ids, emotions, pairs=yardstick.pairs, seed=yardstick.seed)
    return np.unique(np.concatenate([pairs.reshape(-1) for pairs in drawn.values()]))


def measure_images(images: ImageSet, yardstick: Yardstick) -> SetMetrics:
    """All metrics that the images and the yardstick allow."""
    judged = emo_a(images.emotions, images.probabilities)
    values: dict[str, float] = {}
    errors, by_emotion = {"emo_a": judged.standard_error}, {"emo_a": judged.per_emotion}
    semantic = np.fmax(images.scene_probability, images.object_probability)
    if np.isfinite(semantic).all():
        clarity = sem_c(semantic, semantic, name="sem_c_clip")
        values["sem_c_clip"], errors["sem_c_clip"] = clarity.mean, clarity.standard_error
    if images.judged is not None:
        published = sem_c(*images.judged.T, name="sem_c")
        values["sem_c"], errors["sem_c"] = published.mean, published.standard_error
    for pair in _pair_metrics(images, yardstick):
        values[pair.name], by_emotion[pair.name] = pair.mean, pair.per_emotion
        if pair.standard_error is not None:
            errors[pair.name] = pair.standard_error
    if yardstick.recogniser is not None:
        exact = _exact(images, yardstick.recogniser)
        values["emo_a_exact"], errors["emo_a_exact"] = exact.top1, exact.standard_error
        by_emotion["emo_a_exact"] = exact.per_emotion
    values["fd_clip"], by_emotion["fd_clip"] = _frechet(
        images.features, images.emotions, yardstick.real, name="fd_clip"
    )
    if images.inception is not None and yardstick.inception is not None:
        values["fid"], by_emotion["fid"] = _frechet(
            images.inception, images.emotions, yardstick.inception, name="fid"
        )
    return SetMetrics(
        images=len(images.image_ids),
        emo_a=judged.top1,
        emo_a_probability=judged.mean_probability,
        emo_a_two_class=judged.two_class,
        **values,
        standard_errors=errors,
        per_emotion=_turned(by_emotion),
    )


def _pair_metrics(images: ImageSet, yardstick: Yardstick) -> list[PairMean]:
    ids, emotions = images.image_ids, images.emotions
    options = {"pairs": yardstick.pairs, "seed": yardstick.seed}
    distances = [
        sem_d(images.features, ids, emotions, clip=yardstick.clip, pretrained=yardstick.pretrained, **options)
    ]
    if yardstick.recogniser is not None:
        distances.append(
            lpips_tiny(images.pictures, ids, emotions, recogniser=yardstick.recogniser, **options)
        )
    if has_alexnet(yardstick.weights_dir):
        folder = yardstick.weights_dir
        distances.append(lpips_alex(images.pictures, ids, emotions, weights_dir=folder, **options))
    return distances


def _exact(images: ImageSet, recogniser: Recogniser) -> EmoA:
    rows = np.arange(len(images.image_ids), dtype=np.int64)
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    seen = [recognise(recogniser, to_unit_range(images.pictures(part))) for part in parts]
    scene, object_ = (
        torch.cat(found).numpy() for found in ([s.scene for s in seen], [s.object for s in seen])
    )
    return emo_a_exact(images.emotions, scene, object_)


def feature_sums(features: Floats, emotions: Sequence[str]) -> dict[str, FeatureSums]:
    """Sums for Fréchet distances by emotion."""
    labels = np.asarray(emotions)
    return {str(name): FeatureSums.of(features[labels == name]) for name in np.unique(labels)}


def _frechet(
    features: Floats, emotions: Sequence[str], real: Mapping[str, FeatureSums], *, name: Features
) -> tuple[float, dict[str, float]]:
    mine = feature_sums(features, emotions)
    whole = frechet(_total(mine), _total(real), name=name)
    enough = {emotion: sums for emotion, sums in mine.items() if sums.count > 1}
    by_emotion = frechet_by_emotion(enough, real, name=name)
    return whole.distance, {emotion: part.distance for emotion, part in by_emotion.items()}


def _total(sums: Mapping[str, FeatureSums]) -> FeatureSums:
    first, *rest = sums.values()
    for part in rest:
        first = first.merge(part)
    return first


def _turned(table: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Metric to emotion becomes emotion to metric."""
    turned: dict[str, dict[str, float]] = {}
    for metric, by_emotion in table.items():
        for emotion, value in by_emotion.items():
            turned.setdefault(emotion, {})[metric] = value
    return turned
