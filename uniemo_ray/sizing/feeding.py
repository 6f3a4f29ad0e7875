"""Whether a worker's CPUs decode images as fast as its GPU trains on them. Estimates."""

from dataclasses import dataclass

from uniemo_ray.config import Config
from uniemo_ray.pools import find_pool
from uniemo_ray.sizing.blueprint import Stage
from uniemo_ray.sizing.flops import ImageFlops
from uniemo_ray.sizing.gpus import GPUS
from uniemo_ray.training.loading.threads import decoding_threads

DECODED_PER_CPU = 145
"""Photos of 800 x 600 and 120 kB that one CPU decodes and crops to 224 pixels in a second, by `decode_views`;
measured on one CPU of a server."""
DECODED_WITH_VAE = 76
"""The same where the VAE's square of 512 pixels is cut as well (`diffusion.target: crop`)."""
GPU = GPUS["a100"]
"""The GPU whose need is shown where the user names no rate."""


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """One stage's images a second, of one worker."""

    stage: int
    cpus: int
    """That decode."""
    decoded: float
    """Images that they decode in a second."""
    needed: float
    """Images that the GPU trains on in a second."""

    @property
    def is_starved(self) -> bool:
        """Whether the GPU waits for images."""
        return self.decoded < self.needed

    @property
    def enough_cpus(self) -> int:
        """CPUs of a worker (`resources.cpus_per_worker`) with which it would not."""
        return 1 + -int(-self.needed * self.cpus // self.decoded)


def feeding_of(stage: Stage, config: Config, *, flops: ImageFlops | None, measured: float | None) -> Feeding:
    """What a stage's workers decode and need.

    Args:
        stage: 1 or 2.
        config: Of the run.
        flops: Operations of an image, for an estimate of the need.
        measured: Images that one GPU trains on in a second, if the user knows; it counts instead.

    Raises:
        ValueError: neither is given.
    """
    train = config.stage1 if stage == 1 else config.stage2
    if measured is None:
        if flops is None:
            raise ValueError("a need comes from a rate or from operations: give one of them")
        work = flops.stage1 if stage == 1 else flops.stage2
        measured = 1 / GPU.seconds(work, "fp32" if train.precision == "fp32" else "bf16")
    with_vae = stage == 2 and config.diffusion.target == "crop"
    cpus = decoding_threads(find_pool(config, "train").cpus, has_gpu=True)
    decoded = cpus * (DECODED_WITH_VAE if with_vae else DECODED_PER_CPU)
    return Feeding(stage=stage, cpus=cpus, decoded=decoded, needed=measured)
