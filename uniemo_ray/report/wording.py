"""Names and meanings of the metrics, and how numbers, times and names are written for people."""

from dataclasses import dataclass
from typing import Literal

NBSP = "\N{NO-BREAK SPACE}"
MISSING = "\N{EN DASH}"
NOT_DEFINED = "not defined"
"""Of a metric of positive against negative, where the labels have no valences."""


@dataclass(frozen=True)
class Metric:
    """One metric as a reader meets it."""

    key: str
    """Field of `UnderstandingMetrics` or `GenerationMetrics`."""
    label: str
    direction: Literal["up", "down"]
    """Which way is better."""
    is_share: bool
    """Written in percent."""
    meaning: str


UNDERSTANDING_METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "Accuracy", "up", True, "share of test images whose likeliest emotion is their label"),
    Metric("top2", "Top-2 accuracy", "up", True, "share whose label is among the two likeliest emotions"),
    Metric("two_class", "2-class accuracy", "up", True, "positive against negative emotions only"),
)
BY_VALENCE = {"two_class": "accuracy", "emo_a_two_class": "emo_a", "emo_a_clip_two_class": "emo_a_clip"}
"""Metrics of positive against negative, each with the metric of the same answers by emotion."""
GENERATION_METRICS: tuple[Metric, ...] = (
    Metric(
        "emo_a",
        "Emo-A",
        "up",
        True,
        "share of images that the public judge (EmoGen's linear layer on CLIP ViT-L/14 features) takes for "
        "the intended emotion; the filter does not rank by it",
    ),
    Metric(
        "emo_a_probability",
        "Emo-A, probability",
        "up",
        False,
        "mean probability of the intended emotion by the public judge",
    ),
    Metric(
        "emo_a_two_class",
        "Emo-A, 2-class",
        "up",
        True,
        "the same judge's probabilities summed into positive and negative, as the published script does",
    ),
    Metric(
        "emo_a_clip",
        "Emo-A (own classifier)",
        "up",
        True,
        "share of images that the run's own emotion classifier (two layers on the run's own frozen CLIP "
        "features, trained on the training split) takes for the intended emotion; the filter ranks by this "
        "classifier; not comparable with the published Emo-A",
    ),
    Metric(
        "emo_a_clip_probability",
        "Emo-A (own classifier), probability",
        "up",
        False,
        "mean probability of the intended emotion by the run's own classifier",
    ),
    Metric(
        "emo_a_clip_two_class",
        "Emo-A (own classifier), 2-class",
        "up",
        True,
        "the own classifier's probabilities summed into positive and negative",
    ),
    Metric(
        "emo_a_exact",
        "Emo-A (exact rule)",
        "up",
        True,
        "share of images that the known labelling rule takes for the intended emotion, on the scene and "
        "object that a recogniser sees; a trained classifier's mistakes cannot flatter it",
    ),
    Metric(
        "scene_fidelity",
        "Scene as asked",
        "up",
        True,
        "share of images on which a recogniser sees the scene that the condition names; ours, so not "
        "comparable with published numbers",
    ),
    Metric(
        "object_fidelity",
        "Object as asked",
        "up",
        True,
        "the same of objects; not comparable with published numbers",
    ),
    Metric(
        "effective_scenes",
        "Effective scenes",
        "up",
        False,
        "variety: as many equally frequent scenes would be as varied as those that a recogniser sees within "
        "an emotion (exponential of the entropy); not comparable with other numbers of images",
    ),
    Metric(
        "effective_objects",
        "Effective objects",
        "up",
        False,
        "the same of objects; not comparable with other numbers of images",
    ),
    Metric(
        "sem_c",
        "Sem-C",
        "up",
        False,
        "semantic clarity: mean of the larger of the top scene (Places365) and top object (ImageNet) "
        "probability",
    ),
    Metric(
        "sem_c_clip",
        "Sem-C (CLIP heads)",
        "up",
        False,
        "semantic clarity by scene and object heads on the run's own CLIP features; not comparable with the "
        "published Sem-C",
    ),
    Metric(
        "sem_d",
        "Sem-D",
        "up",
        False,
        "semantic diversity by the published protocol: mean squared difference of CLIP ViT-L/14 features "
        "over 10 pairs of each emotion, which may mix emotions and which CLIP sees almost black",
    ),
    Metric(
        "sem_d_l14",
        "Sem-D (ViT-L/14)",
        "up",
        False,
        "semantic diversity: mean squared difference of CLIP ViT-L/14 image features over pairs of one "
        "emotion; not comparable with the published Sem-D",
    ),
    Metric(
        "sem_d_clip",
        "Sem-D (own CLIP)",
        "up",
        False,
        "semantic diversity: mean squared distance over pairs of one emotion, on image features of the run's "
        "own CLIP; not comparable with the published Sem-D",
    ),
    Metric(
        "lpips",
        "LPIPS",
        "up",
        False,
        "visual diversity by the published protocol: perceptual distance (AlexNet, fed values from 0 to 1) "
        "over 10 pairs of each emotion, which may mix emotions",
    ),
    Metric(
        "lpips_alex",
        "LPIPS (AlexNet)",
        "up",
        False,
        "visual diversity: perceptual distance (AlexNet, fed values from -1 to 1) over pairs of one emotion; "
        "not comparable with the published LPIPS",
    ),
    Metric(
        "lpips_tiny",
        "LPIPS (tiny)",
        "up",
        False,
        "visual diversity: perceptual distance over pairs of one emotion, on features of the small "
        "recogniser shipped with the package; not comparable with published LPIPS",
    ),
    Metric(
        "fid",
        "FID",
        "down",
        False,
        "Fréchet distance of Inception-v3 features by the published protocol: whole images squashed to "
        "299 x 299, 1,000 generated of each emotion against the real images of all splits",
    ),
    Metric(
        "fid_small",
        "FID (fewer images)",
        "down",
        False,
        "like FID, but on fewer than 1,000 generated images of some emotion, which makes it larger; not "
        "comparable with the published FID",
    ),
    Metric(
        "fid_train",
        "FID (training split)",
        "down",
        False,
        "Fréchet distance of Inception-v3 features of all images to the training split, every image "
        "cropped to a square first; not comparable with the published FID",
    ),
    Metric(
        "fd_clip",
        "FD (CLIP)",
        "down",
        False,
        "Fréchet distance to the real images on the run's own CLIP features; not comparable with FID",
    ),
)


def percent(share: float | None) -> str:
    """A share in [0, 1] as percent with one decimal."""
    return MISSING if share is None else f"{100 * share:.1f}{NBSP}%"


def number(value: float | None) -> str:
    """About three significant digits; thousands separated."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:,.{_decimals(value)}f}"


def metric_text(metric: Metric, value: float | None, error: float | None = None) -> str:
    """A metric's value, with its standard error to the same decimals where there is one."""
    text = percent(value) if metric.is_share else number(value)
    if value is None or error is None:
        return text
    spread = f"{100 * error:.1f}" if metric.is_share else f"{error:.{_decimals(value)}f}"
    return f"{text} ±{NBSP}{spread}"


def _decimals(value: float) -> int:
    return next((digits for limit, digits in ((1000, 0), (100, 1), (10, 2)) if abs(value) >= limit), 3)


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s` or `1 h 04 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def words(name: str) -> str:
    """A name as people read it: underscores become spaces."""
    return name.replace("_", " ")


def loss_term(name: str) -> str:
    """A loss as people read it: `scene_loss` is `scene`, and the bare `loss` is the total."""
    return words(name.removesuffix("_loss")) if name != "loss" else "total"


def reason(name: str) -> str:
    """A reason of the filter in plain words; an unknown one as it is written."""
    plain = {"non_finite": "score is no number", "not_scored": "no score"}
    for key, score in (("emo", "emotion score"), ("sem", "semantic score")):
        plain |= {
            f"{key}_too_high_rank": f"{score} among the best",
            f"{key}_too_low_rank": f"{score} too low",
        }
    return plain.get(name, words(name))
