"""All metrics of one set of images (section 6), each under its true name."""

# M images, C emotions, E CLIP joint width

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.data.images import to_unit_range
from uniemo_ray.metrics.emo_a import EmoA, emo_a, emo_a_exact
from uniemo_ray.metrics.emotion_judge import EmotionJudge
from uniemo_ray.metrics.frechet import FeatureSums, Protocol, frechet, frechet_by_emotion
from uniemo_ray.metrics.pairs import Ints, PairMean, emotion_pairs
from uniemo_ray.metrics.perceptual import alex_distance, has_alexnet, lpips_alex, lpips_tiny
from uniemo_ray.metrics.pictures import Pictures
from uniemo_ray.metrics.published import draw_published_pairs, is_full, lpips_published, sem_d_published
from uniemo_ray.metrics.recogniser import Recogniser, recognise
from uniemo_ray.metrics.sem_c import sem_c
from uniemo_ray.metrics.sem_d import sem_d
from uniemo_ray.models.clip import ClipParts

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
    is_generated: bool
    """Whether the published protocol, which is one for generated images, applies."""
    probabilities: Floats
    """(M, C) by the section-2 classifier, which the filter ranks by."""
    scene_probability: Floats
    """(M,) of the likeliest scene; NaN without scene names."""
    object_probability: Floats
    """(M,) of the likeliest object; NaN without object names."""
    features: Floats
    """(M, E) frozen CLIP features, unnormalised."""
    inception: Floats | None = None
    """(M, 2048) Inception-v3 features of the cropped pictures, when the user has its weights."""
    published: "PublishedFeatures | None" = None
    """The same network's features by the published protocol, of generated images alone."""
    judged: NDArray[np.float64] | None = None
    """(M, 2) probabilities of the likeliest scene and object by both ResNet-50, if the user has them."""


class PublishedFeatures(NamedTuple):
    """Inception-v3 features of the images that the published FID takes."""

    features: Floats
    """(K, 2048)."""
    emotions: Sequence[str]
    """K intended emotions."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What a set of images is measured against and with."""

    real: Mapping[str, FeatureSums]
    """CLIP features of real images by emotion."""
    recogniser: Recogniser | None
    """Judge of EmoSketch pictures; without one there is no exact Emo-A and no `lpips_tiny`."""
    pairs: int
    """Largest number of pairs per emotion."""
    seed: int
    published_clip: Callable[[], ClipParts] | None = None
    """Loads the CLIP behind the features, if it is that of the published numbers (OpenAI's ViT-L/14)."""
    judge: EmotionJudge | None = None
    """Public judge, if the user has its file; it judges features of the published CLIP alone."""
    inception: Mapping[str, FeatureSums] | None = None
    """Inception-v3 features of the cropped real training images by emotion."""
    published: Mapping[str, FeatureSums] | None = None
    """The same by the published protocol, of all real images."""
    weights_dir: str | None = None
    """Folder with the weights of AlexNet, perhaps."""


@dataclass(frozen=True, kw_only=True)
class SetMetrics:
    """Metrics of one set of images; None where a metric was not measured.

    The report's `GenerationMetrics` says what each of them means.
    """

    images: int
    emo_a: float | None = None
    emo_a_probability: float | None = None
    emo_a_two_class: float | None = None
    emo_a_clip: float
    emo_a_clip_probability: float
    emo_a_clip_two_class: float
    emo_a_exact: float | None = None
    sem_c: float | None = None
    sem_c_clip: float | None = None
    sem_d: float | None = None
    sem_d_l14: float | None = None
    sem_d_clip: float | None = None
    lpips: float | None = None
    lpips_alex: float | None = None
    lpips_tiny: float | None = None
    fid: float | None = None
    fid_small: float | None = None
    fid_train: float | None = None
    fd_clip: float
    standard_errors: dict[str, float]
    """Metric to standard error."""
    per_emotion: dict[str, dict[str, float]]
    """Emotion to metric to value."""

    def to_dict(self) -> dict[str, Any]:
        """The measured metrics as plain JSON values, keyed by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def needed_rows(
    image_ids: Sequence[str], emotions: Sequence[str], yardstick: Yardstick, *, is_generated: bool
) -> Ints:
    """Sorted rows (B,) of the images whose pixels `measure_images` looks at, of M ids and emotions.

    The recogniser looks at each. LPIPS by published weights looks at the drawn pairs, at most
    2 `pairs` images of each emotion however many there are, and so do the metrics on published pairs.
    All else follows from features.
    """
    if yardstick.recogniser is not None:
        return np.arange(len(image_ids), dtype=np.int64)
    has_lpips, seed = has_alexnet(yardstick.weights_dir), yardstick.seed
    drawn: list[Ints] = []
    if has_lpips:
        drawn += emotion_pairs(image_ids, emotions, pairs=yardstick.pairs, seed=seed).values()
    if is_generated and (has_lpips or yardstick.published_clip):
        drawn += draw_published_pairs(image_ids, emotions, seed=seed).values()
    if not drawn:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate([pairs.reshape(-1) for pairs in drawn]))


def measure_images(images: ImageSet, yardstick: Yardstick) -> SetMetrics:
    """All metrics that the images and the yardstick allow."""
    found = _Found({}, {}, {})
    own = emo_a(images.emotions, images.probabilities, name="emo_a_clip")
    found.add_judged(own)
    if yardstick.judge is not None and yardstick.published_clip is not None:
        found.add_judged(emo_a(images.emotions, yardstick.judge(images.features), name="emo_a"))
    semantic = np.fmax(images.scene_probability, images.object_probability)
    if np.isfinite(semantic).all():
        clarity = sem_c(semantic, semantic, name="sem_c_clip")
        found.add(clarity.name, clarity.mean, error=clarity.standard_error)
    if images.judged is not None:
        clarity = sem_c(*images.judged.T, name="sem_c")
        found.add(clarity.name, clarity.mean, error=clarity.standard_error)
    for pair in [*_pair_metrics(images, yardstick), *_published_pairs(images, yardstick)]:
        found.add(pair.name, pair.mean, error=pair.standard_error, by_emotion=pair.per_emotion)
    if yardstick.recogniser is not None:
        exact = _exact(images, yardstick.recogniser)
        found.add(exact.name, exact.top1, error=exact.standard_error, by_emotion=exact.per_emotion)
    _add_frechet(found, "fd_clip", images.features, images.emotions, yardstick.real)
    if images.inception is not None and yardstick.inception is not None:
        _add_frechet(found, "fid_train", images.inception, images.emotions, yardstick.inception)
    if images.published is not None and yardstick.published is not None:
        name: Protocol = "fid" if is_full(images.published.emotions) else "fid_small"
        _add_frechet(found, name, *images.published, yardstick.published)
    return SetMetrics(
        images=len(images.image_ids),
        **found.values,
        standard_errors=found.errors,
        per_emotion=_turned(found.by_emotion),
    )


class _Found(NamedTuple):
    """What was measured so far."""

    values: dict[str, float]
    errors: dict[str, float]
    by_emotion: dict[str, dict[str, float]]

    def add(
        self,
        name: str,
        value: float,
        *,
        error: float | None = None,
        by_emotion: Mapping[str, float] | None = None,
    ) -> None:
        """A metric, with its standard error and its values by emotion where there are any."""
        self.values[name] = value
        if error is not None:
            self.errors[name] = error
        if by_emotion:
            self.by_emotion[name] = dict(by_emotion)

    def add_judged(self, judged: EmoA) -> None:
        """A classifier's three shares."""
        self.add(judged.name, judged.top1, error=judged.standard_error, by_emotion=judged.per_emotion)
        self.values[f"{judged.name}_probability"] = judged.mean_probability
        self.values[f"{judged.name}_two_class"] = judged.two_class


def _pair_metrics(images: ImageSet, yardstick: Yardstick) -> list[PairMean]:
    """Ours: pairs within an emotion."""
    ids, emotions = images.image_ids, images.emotions
    options = {"pairs": yardstick.pairs, "seed": yardstick.seed}
    name: Literal["sem_d_l14", "sem_d_clip"] = "sem_d_l14" if yardstick.published_clip else "sem_d_clip"
    distances = [sem_d(images.features, ids, emotions, name=name, **options)]
    if yardstick.recogniser is not None:
        distances.append(
            lpips_tiny(images.pictures, ids, emotions, recogniser=yardstick.recogniser, **options)
        )
    if has_alexnet(yardstick.weights_dir):
        folder = yardstick.weights_dir
        distances.append(lpips_alex(images.pictures, ids, emotions, weights_dir=folder, **options))
    return distances


def _published_pairs(images: ImageSet, yardstick: Yardstick) -> list[PairMean]:
    """The published protocol's, of generated images."""
    if not images.is_generated:
        return []
    drawn = draw_published_pairs(images.image_ids, images.emotions, seed=yardstick.seed)
    distances = []
    if has_alexnet(yardstick.weights_dir):
        distance = alex_distance(yardstick.weights_dir)
        distances.append(lpips_published(images.pictures, drawn, distance=distance))
    if yardstick.published_clip is not None:
        distances.append(sem_d_published(images.pictures, drawn, clip=yardstick.published_clip()))
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


def _add_frechet(
    found: _Found, name: Protocol, features: Floats, emotions: Sequence[str], real: Mapping[str, FeatureSums]
) -> None:
    mine = feature_sums(features, emotions)
    whole = frechet(_total(mine), _total(real), name=name)
    enough = {emotion: sums for emotion, sums in mine.items() if sums.count > 1}
    parts = frechet_by_emotion(enough, real, name=name)
    by_emotion = {emotion: part.distance for emotion, part in parts.items()}
    found.add(name, whole.distance, by_emotion=by_emotion)


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
