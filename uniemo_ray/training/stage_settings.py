"""What a training stage is built from; light, because Ray's controller unpickles it too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from uniemo_ray.config import Config, TrainConfig

StageName = Literal["understanding", "joint"]
Coefficients = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settings of `build_stage`. Every path in it is readable by the workers."""

    stage: StageName
    """Which objective."""
    config: Config
    """The run's settings, or a step's view of them."""
    scenes: tuple[str, ...] = ()
    """Attribute base of the scenes, in the order of the network's buffers."""
    objects: tuple[str, ...] = ()
    """Attribute base of the objects."""
    weights: str | None = None
    """Network weights (safetensors, local or s3://) to start from; otherwise CLIP's and fresh heads. Those of
    stage 1 hold no fusion."""
    fusion_weights: str | None = None
    """For stage 2 of a later round: weights of the stage 2 before, which hold the fusion and its head. Where
    neither file holds a fusion, it is fresh and `fusion.start` decides where it starts."""
    denoiser_weights: str | None = None
    """What an earlier round trained of the denoiser, a local path or s3://...safetensors."""
    name_embeddings: str | None = None
    """Folder of stored text embeddings of the attribute base; otherwise CLIP's text tower computes them."""
    coefficients: Coefficients = field(default_factory=dict)
    """alpha of eq. 5: kind to attribute to C values. Needed by stage 2 unless coefficients are off."""

    @property
    def train(self) -> TrainConfig:
        """The stage's own section."""
        return self.config.stage1 if self.stage == "understanding" else self.config.stage2
