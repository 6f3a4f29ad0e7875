"""What the tests of this folder train and paint with: full size on a GPU, small on a CPU."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.random_models import input_side, make_batch, make_diffusion, make_net, reduced
from tests.gpu.device import DEVICE, IS_SMALL
from uniemo_ray.config import Config
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.architectures import SD15
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.joint_objective import JointObjective
from uniemo_ray.training.objectives import UnderstandingObjective

if TYPE_CHECKING:
    from uniemo_ray.models.diffusion import DiffusionParts
    from uniemo_ray.models.uniemo import UniEmoNet

CLIP = "tiny" if IS_SMALL else "ViT-B-32-quickgelu"
SHAPE = reduced(SD15, 10) if IS_SMALL else SD15
SIZE_PX = 64 if IS_SMALL else 512
BATCH = 4
STAGE_2_BATCH = 2 if IS_SMALL else 4
TEXT_WIDTH = 768


def make_config(*options: str) -> Config:
    """Settings of one worker."""
    own = [f"encoder.clip={CLIP}", "encoder.query_length=8", f"diffusion.size_px={SIZE_PX}"]
    return load_config(None, [*own, "resources.workers=1", *options])


def net_of(config: Config, *, seed: int = 0) -> "tuple[UniEmoNet, Any]":
    """The network and its parameter groups; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return make_net(config, TEXT_WIDTH)


def understanding_engine(
    *, zero_stage: int, precision: str = "fp32", seed: int = 0, micro_batch: int | None = None
) -> Engine:
    """Stage 1; with a micro-batch its random numbers are the same whatever the number of ranks."""
    options = [f"stage1.{name}" for name in (f"zero_stage={zero_stage}", f"precision={precision}")]
    options += [f"stage1.micro_batch={micro_batch}"] if micro_batch else []
    config = make_config(f"stage1.batch_size={BATCH}", *options)
    net, groups = net_of(config, seed=seed)
    objective = UnderstandingObjective(net, config.losses)
    return Engine(objective, groups(1), train=config.stage1, total_steps=20, seed=0)


def joint_engine(diffusion: "DiffusionParts", *, precision: str) -> Engine:
    """Stage 2 with a frozen denoiser and gradient checkpointing."""
    from uniemo_ray.models.speed import tune_training

    config = make_config(
        f"stage2.batch_size={STAGE_2_BATCH}",
        f"stage2.precision={precision}",
        "stage2.gradient_checkpointing=true",
    )
    net, groups = net_of(config)
    tune_training(net, diffusion.denoiser, config.stage2)
    objective = JointObjective(net, diffusion, config.losses, prompt=config.diffusion.prompt)
    return Engine(objective, groups(2), train=config.stage2, total_steps=20, seed=0)


def sd15() -> "DiffusionParts":
    """Stable Diffusion 1.5 with random weights, on the device; on a CPU a tenth of its width."""
    torch.manual_seed(1)
    return make_diffusion(SHAPE, device=DEVICE).to(DEVICE)


def batch(number: int, *, size_px: int | None = None, count: int = BATCH) -> dict[str, Tensor]:
    """Batch `number` of an endless set, on the CPU."""
    torch.manual_seed(100 + number)
    return make_batch(input_side(CLIP), count, size_px=size_px)


def part(values: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """One rank's share of a batch."""
    size = BATCH // ranks
    return {name: value[rank * size : (rank + 1) * size] for name, value in values.items()}
