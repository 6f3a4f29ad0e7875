"""What a baseline that trains is built from; light, because Ray's controller unpickles it too."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniemo_ray.config import TrainConfig
from uniemo_ray.config.generation_baselines import BaselineTraining, TrainedBaseline
from uniemo_ray.training.stage_settings import StageName, StageSettings

if TYPE_CHECKING:
    from uniemo_ray.training.parts import StageParts


@dataclass(frozen=True, kw_only=True)
class BaselineStage(StageSettings):
    """Settings of `build`."""

    stage: StageName = "joint"
    baseline: TrainedBaseline
    """Which one."""
    prior: str | None = None
    """Folder of DreamBooth's class images, a local path or s3://; None without prior preservation."""

    @property
    def own(self) -> BaselineTraining:
        """The baseline's section."""
        section: BaselineTraining = getattr(self.config.generation_baselines, self.baseline)
        return section

    @property
    def train(self) -> TrainConfig:
        """The section as the engine takes it; nothing is validated or augmented."""
        return train_config(self.own)


def train_config(own: BaselineTraining) -> TrainConfig:
    """A baseline's section, or a step's view of it, as the settings of a stage."""
    return TrainConfig(
        epochs=own.epochs,
        batch_size=own.batch_size,
        micro_batch=own.micro_batch,
        schedule=own.schedule,
        warmup_steps=own.warmup_steps,
        weight_decay=own.weight_decay,
        gradient_clip=own.gradient_clip,
        zero_stage=own.zero_stage,
        precision=own.precision,
        gradient_checkpointing=own.gradient_checkpointing,
        validate_on="none",
        augment=False,
    )


def build(settings: StageSettings) -> "StageParts":
    """Build a baseline on a worker that trains it, a `StageBuilder`.

    Raises:
        TypeError: settings of another stage.
    """
    from uniemo_ray.baselines.generation.build import build_baseline  # seconds of imports, for ranks alone

    if not isinstance(settings, BaselineStage):
        raise TypeError(f"expected BaselineStage, got {type(settings).__name__}")
    return build_baseline(settings)
