"""What a study can measure, and which arms have it."""

from typing import Literal

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.emotions import MIKELS
from uniemo_ray.metrics.emotion_judge import has_emotion_judge
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.perceptual import has_alexnet
from uniemo_ray.metrics.resnet import has_judges
from uniemo_ray.metrics.sem_d import is_published_clip
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.report.wording import BY_VALENCE, GENERATION_METRICS, UNDERSTANDING_METRICS, Metric

Until = Literal["stage_1", "stage_2", "images"]
"""How far an arm goes in its last round: to the end of stage 1, of stage 2, or until its images are
measured."""
ACCURACY = "accuracy"
JUDGE_ERROR = Metric(
    "judge_error",
    "Error of the judge",
    "down",
    True,
    "Emo-A by the run's own classifier minus Emo-A by the exact rule, of the same images",
)
RECOGNISED = ("scene_fidelity", "object_fidelity", "effective_scenes", "effective_objects")
PUBLIC_JUDGE = ("emo_a", "emo_a_probability", "emo_a_two_class")
PUBLISHED_IMAGES = 1000
"""Images of each emotion on which `fid` is defined."""


def known_metrics() -> dict[str, Metric]:
    """Every metric that a study may ask for, by key."""
    accuracy = next(metric for metric in UNDERSTANDING_METRICS if metric.key == ACCURACY)
    return {metric.key: metric for metric in (accuracy, *GENERATION_METRICS, JUDGE_ERROR)}


def why_missing(key: str, config: Config, *, until: Until) -> str | None:
    """Why an arm does not have a metric; None if it has it."""
    if key == ACCURACY:
        return None
    if until != "images":
        return f"it ends after {until.replace('_', ' ')} and makes no images"
    if key in ("emo_a_exact", JUDGE_ERROR.key) and config.data.kind != "sketch":
        return "the exact rule is known for data.kind sketch alone"
    if key in RECOGNISED and config.data.kind != "sketch":
        return "a recogniser of scenes and objects comes with data.kind sketch alone"
    if key == "fid" and config.generation.per_emotion < PUBLISHED_IMAGES:
        return f"it is defined on {PUBLISHED_IMAGES:,} images of each emotion (generation.per_emotion)"
    if key == "fid_small" and config.generation.per_emotion >= PUBLISHED_IMAGES:
        return f"{PUBLISHED_IMAGES:,} images of each emotion give fid"
    space = label_space(config.data)
    if key in PUBLIC_JUDGE and space != MIKELS:
        return "EmoGen's judge tells EmoSet's eight emotions apart, and no others"
    if key in BY_VALENCE and not space.has_valence:
        return "the labels have no valences"
    folder, encoder = config.evaluation.weights_dir, config.encoder
    is_published = is_published_clip(encoder.clip, pretrained=encoder.clip_pretrained)
    needs = {
        ("fid", "fid_small", "fid_train"): ("Inception-v3", has_weights(folder, INCEPTION_FILE)),
        ("lpips", "lpips_alex"): ("AlexNet", has_alexnet(folder)),
        ("sem_c",): ("both ResNet-50", has_judges(folder)),
        PUBLIC_JUDGE: ("EmoGen's judge", has_emotion_judge(folder)),
    }
    for keys, (file, is_there) in needs.items():
        if key in keys and not is_there:
            return f"evaluation.weights_dir does not hold {file}"
    if key in ("sem_d", "sem_d_l14") and not is_published:
        return "encoder.clip is not OpenAI's ViT-L/14"
    if key == "sem_d_clip" and is_published:
        return "with OpenAI's ViT-L/14 it is called sem_d_l14"
    return None
