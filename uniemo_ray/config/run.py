"""All settings of a run."""

from typing import Literal

from pydantic import model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.config.baselines import UnderstandingBaselinesConfig
from uniemo_ray.config.data import DataConfig
from uniemo_ray.config.diffusion import DiffusionConfig, EmotionSpaceConfig, GenerationConfig
from uniemo_ray.config.feedback import EvaluationConfig, FeedbackConfig, FilterConfig, ScorerConfig
from uniemo_ray.config.generation_baselines import GenerationBaselinesConfig
from uniemo_ray.config.network import EncoderConfig, FusionConfig, LossConfig
from uniemo_ray.config.resources import ResourceConfig
from uniemo_ray.config.training import TrainConfig
from uniemo_ray.settings_base import Settings


class Config(Settings):
    """A whole run of the feedback loop."""

    run: Address = "runs/feedback"
    """Run folder: a local path or `s3://bucket/prefix`. Source: ours."""
    tracking: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where training metrics go beside `records/metrics.jsonl` of each stage. `wandb` and `mlflow` need their
    package on every machine that trains. Their own environment variables say where a server is, such as
    WANDB_API_KEY and MLFLOW_TRACKING_URI; without these they write files into the stage's `records`. Source:
    ours."""
    seed: int = 0
    """Seed of everything random except the data set. Unit: none. Source: ours."""
    data: DataConfig = DataConfig()
    encoder: EncoderConfig = EncoderConfig()
    fusion: FusionConfig = FusionConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    losses: LossConfig = LossConfig()
    stage1: TrainConfig = TrainConfig()
    stage2: TrainConfig = TrainConfig()
    emotion_space: EmotionSpaceConfig = EmotionSpaceConfig()
    scorers: ScorerConfig = ScorerConfig()
    generation: GenerationConfig = GenerationConfig()
    filter: FilterConfig = FilterConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baselines: UnderstandingBaselinesConfig = UnderstandingBaselinesConfig()
    generation_baselines: GenerationBaselinesConfig = GenerationBaselinesConfig()
    resources: ResourceConfig = ResourceConfig()

    def for_round(self, round_: int) -> "Config":
        """The settings of one round, counted from 1: its own numbers of epochs and images, and no other's."""
        stages = {name: getattr(self, name) for name in ("stage1", "stage2")}
        epochs = {
            name: stage.later_epochs if round_ > 1 and stage.later_epochs else stage.epochs
            for name, stage in stages.items()
        }
        changed: dict[str, Settings] = {
            name: stage.model_copy(update={"epochs": epochs[name], "later_epochs": None})
            for name, stage in stages.items()
        }
        feedback = self.feedback
        if feedback.later_real_images is not None:
            count = feedback.later_real_images if round_ > 1 else feedback.real_images
            changed["feedback"] = feedback.model_copy(
                update={"real_images": count, "later_real_images": None}
            )
        return self.model_copy(update=changed)

    @model_validator(mode="after")
    def _batches_split(self) -> "Config":
        for name in ("stage1", "stage2"):
            stage, workers = getattr(self, name), self.resources.most_workers
            if (stage.micro_batch or 1) * workers > stage.batch_size:
                raise ValueError(
                    f"{name}.batch_size {stage.batch_size} is less than one pass of {stage.micro_batch or 1} "
                    f"images for each of {workers} workers: raise it, or lower "
                    + (f"{name}.micro_batch or " if stage.micro_batch else "")
                    + "resources.workers"
                )
        if self.diffusion.target == "crop" and not self.stage2.augment:
            raise ValueError(
                "diffusion.target is 'crop' but stage2.augment is off, so there is no crop: "
                "set diffusion.target to whole"
            )
        if self.data.kind == "sketch" and self.data.sketch_train < self.stage1.batch_size:
            raise ValueError(
                f"data.sketch_train {self.data.sketch_train} is less than one batch of stage1 "
                f"({self.stage1.batch_size}): lower stage1.batch_size or make more images"
            )
        return self
