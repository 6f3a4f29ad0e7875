"""All metrics of one set of images (section 6), each under its true name."""

# M images, B some of them

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from uniemo_ray.metrics.emo_a import EmoA, emo_a
from uniemo_ray.metrics.frechet import FeatureSums, Protocol, frechet, frechet_by_emotion
from uniemo_ray.metrics.pairs import Ints, Names, PairMean, emotion_pairs
from uniemo_ray.metrics.perceptual import alex_distance, has_alexnet, lpips_alex, lpips_tiny
from uniemo_ray.metrics.pictures import Pictures
from uniemo_ray.metrics.published import draw_published_pairs, lpips_published, sem_d_published
from uniemo_ray.metrics.recogniser import Recogniser
from uniemo_ray.metrics.score_sums import ScoreSums
from uniemo_ray.metrics.sem_c import SemC, sem_c
from uniemo_ray.metrics.sem_d import RowFeatures, sem_d
from uniemo_ray.metrics.shard_sums import PictureCounts
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.statistics.moments import Moments


class Sides(NamedTuple):
    """Both sides of a Fréchet distance, by emotion."""

    name: Protocol
    generated: Mapping[str, FeatureSums]
    real: Mapping[str, FeatureSums]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """M images with what was measured on them: sums over all, and single values for the pairs alone."""

    image_ids: Names
    emotions: Names
    """Intended emotion, or the label of real images."""
    pictures: Pictures
    """At least those of `needed_rows`."""
    features: RowFeatures
    """Frozen CLIP features, unnormalised; at least those of `paired_rows`."""
    is_generated: bool
    """Whether the published protocol, which is one for generated images, applies."""
    sums: ScoreSums
    """What the score rows say."""
    sides: Iterable[Sides] = ()
    """What Fréchet distances compare, one after the other: sums of wide features take gigabytes together."""
    judged: Moments | None = None
    """`clarity` by both ResNet-50, if the user has them."""
    recognised: PictureCounts | None = None
    """What the recogniser finds on all pictures, where there is one."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What a set of images is measured with."""

    recogniser: Recogniser | None
    """Judge of EmoSketch pictures; without one there is no exact Emo-A and no `lpips_tiny`."""
    pairs: int
    """Largest number of pairs per emotion."""
    seed: int
    labels: tuple[str, ...]
    """The emotions, in order."""
    published_clip: Callable[[], ClipParts] | None = None
    """Loads the CLIP behind the features, if it is that of the published numbers (OpenAI's ViT-L/14)."""
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
    emo_a_clip_two_class: float | None = None
    emo_a_exact: float | None = None
    scene_fidelity: float | None = None
    object_fidelity: float | None = None
    effective_scenes: float | None = None
    effective_objects: float | None = None
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


def paired_rows(image_ids: Names, emotions: Names, yardstick: Yardstick) -> Ints:
    """Sorted rows (B,) of the images whose features `measure_images` compares in pairs."""
    pairs = emotion_pairs(image_ids, emotions, pairs=yardstick.pairs, seed=yardstick.seed)
    return _rows_of(pairs.values())


def needed_rows(image_ids: Names, emotions: Names, yardstick: Yardstick, *, is_generated: bool) -> Ints:
    """Sorted rows (B,) of the images whose pixels `measure_images` looks at, of M ids and emotions.

    LPIPS looks at the drawn pairs, at most 2 `pairs` images of each emotion however many there are, and so do
    the metrics on published pairs. All else follows from sums.
    """
    has_lpips, seed = has_alexnet(yardstick.weights_dir), yardstick.seed
    drawn: list[Ints] = []
    if has_lpips or yardstick.recogniser is not None:
        drawn += emotion_pairs(image_ids, emotions, pairs=yardstick.pairs, seed=seed).values()
    if is_generated and (has_lpips or yardstick.published_clip):
        drawn += draw_published_pairs(image_ids, emotions, labels=yardstick.labels, seed=seed).values()
    return _rows_of(drawn)


def _rows_of(drawn: Iterable[Ints]) -> Ints:
    rows = [pairs.reshape(-1) for pairs in drawn]
    return np.unique(np.concatenate(rows)) if rows else np.zeros(0, dtype=np.int64)


def measure_images(images: ImageSet, yardstick: Yardstick) -> SetMetrics:
    """All metrics that the images and the yardstick allow."""
    found = _Found({}, {}, {})
    sums = images.sums
    found.add_judged(emo_a(sums.own, name="emo_a_clip"))
    if sums.public is not None:
        found.add_judged(emo_a(sums.public, name="emo_a"))
    if not sums.unclear:
        found.add_clarity(sem_c(sums.clarity, name="sem_c_clip"))
    if images.judged is not None:
        found.add_clarity(sem_c(images.judged, name="sem_c"))
    for pair in [*_pair_metrics(images, yardstick), *_published_pairs(images, yardstick)]:
        found.add(pair.name, pair.mean, error=pair.standard_error, by_emotion=pair.per_emotion)
    if images.recognised is not None:
        found.add_recognised(images.recognised)
    # `map` lets go of one protocol's sums before it asks for the next
    for name, distance, by_emotion in map(_frechet, images.sides):
        found.add(name, distance, by_emotion=by_emotion)
    return SetMetrics(
        images=sums.count,
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
        """A classifier's shares."""
        self.add(judged.name, judged.top1, error=judged.standard_error, by_emotion=judged.per_emotion)
        self.values[f"{judged.name}_probability"] = judged.mean_probability
        if judged.two_class is not None:
            self.values[f"{judged.name}_two_class"] = judged.two_class

    def add_clarity(self, clear: SemC) -> None:
        """Sem-C."""
        self.add(clear.name, clear.mean, error=clear.standard_error)

    def add_recognised(self, recognised: PictureCounts) -> None:
        """Emo-A by the exact rule, and what is seen beside what was asked for."""
        exact, seen = emo_a(recognised.exact, name="emo_a_exact"), recognised.seen
        self.add(exact.name, exact.top1, error=exact.standard_error, by_emotion=exact.per_emotion)
        for name, share in (("scene_fidelity", seen.scene.share), ("object_fidelity", seen.object.share)):
            if share is not None:
                self.add(name, share)
        for kind in ("scenes", "objects"):
            numbers = seen.effective(kind)
            self.add(f"effective_{kind}", float(np.mean(list(numbers.values()))), by_emotion=numbers)


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
    ids, emotions = images.image_ids, images.emotions
    drawn = draw_published_pairs(ids, emotions, labels=yardstick.labels, seed=yardstick.seed)
    distances = []
    if has_alexnet(yardstick.weights_dir):
        distance = alex_distance(yardstick.weights_dir)
        distances.append(lpips_published(images.pictures, drawn, distance=distance))
    if yardstick.published_clip is not None:
        distances.append(sem_d_published(images.pictures, drawn, clip=yardstick.published_clip()))
    return distances


def _frechet(sides: Sides) -> tuple[Protocol, float, dict[str, float]]:
    """Name, distance over all images, and distance within each emotion."""
    name, mine, real = sides
    whole = frechet(_total(mine), _total(real), name=name)
    enough = {emotion: sums for emotion, sums in mine.items() if sums.count > 1}
    parts = frechet_by_emotion(enough, real, name=name)
    return name, whole.distance, {emotion: part.distance for emotion, part in parts.items()}


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
