"""What a baseline that trains is built from; light, because Ray's controller unpickles it too."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniemo_ray.config import TrainConfig
from uniemo_ray.config.baselines import BaselineTraining, TrainedBaseline
from uniemo_ray.training.stage_settings import StageSettings

if TYPE_CHECKING:
    from uniemo_ray.training.parts import StageParts


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(StageSettings):
    """Settings of `build_baseline`. They train as a stage of one objective, with numbers of their own."""

    baseline: TrainedBaseline
    """Which network."""

    @property
    def section(self) -> BaselineTraining:
        """The baseline's own settings."""
        section: BaselineTraining = getattr(self.config.baselines, self.baseline)
        return section

    @property
    def train(self) -> TrainConfig:
        """The section as the engine reads it."""
        own = self.section
        return TrainConfig(
            epochs=own.epochs,
            batch_size=own.batch_size,
            micro_batch=own.micro_batch,
            warmup_steps=own.warmup_steps,
            weight_decay=own.weight_decay,
            gradient_clip=own.gradient_clip,
            precision=own.precision,
            augment=own.augment,
            crop_scale=own.crop_scale,
        )


def build(settings: StageSettings) -> "StageParts":
    """Build a baseline on a worker that trains it.

    Raises:
        ValueError: settings of something else, or that do not fit together.
    """
    from uniemo_ray.baselines.understanding.build import build_baseline  # seconds of imports, for ranks alone

    if not isinstance(settings, BaselineSettings):
        raise ValueError(f"expected the settings of a baseline, got {type(settings).__name__}")
    return build_baseline(settings)
