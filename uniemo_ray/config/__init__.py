"""Every setting and default of a run, as frozen pydantic models; `settings_file` reads them from YAML.

The docstring below a field is its entry in the settings reference. It says what the field is, the unit of a
number (`Unit: ...`, `none` where it has none) and where the default is from (`Source: ...`).
"""

from uniemo_ray.config.baselines import UnderstandingBaselinesConfig
from uniemo_ray.config.data import FOLDED, MAX_PIXELS, SPLITS, DataConfig
from uniemo_ray.config.diffusion import (
    PLACEHOLDER,
    PNG_LEVEL,
    DiffusionConfig,
    EmotionSpaceConfig,
    GenerationConfig,
    check_threads,
)
from uniemo_ray.config.feedback import EvaluationConfig, FeedbackConfig, FilterConfig, ScorerConfig
from uniemo_ray.config.generation_baselines import GenerationBaselinesConfig
from uniemo_ray.config.network import EncoderConfig, FusionConfig, LossConfig
from uniemo_ray.config.resources import ResourceConfig, WorkerRange
from uniemo_ray.config.run import Config
from uniemo_ray.config.training import LearningRates, TrainConfig
from uniemo_ray.settings_base import Settings

__all__ = [
    "FOLDED",
    "MAX_PIXELS",
    "PLACEHOLDER",
    "PNG_LEVEL",
    "SPLITS",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "EmotionSpaceConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "FeedbackConfig",
    "FilterConfig",
    "FusionConfig",
    "GenerationBaselinesConfig",
    "GenerationConfig",
    "LearningRates",
    "LossConfig",
    "ResourceConfig",
    "ScorerConfig",
    "Settings",
    "TrainConfig",
    "UnderstandingBaselinesConfig",
    "WorkerRange",
    "check_threads",
]
