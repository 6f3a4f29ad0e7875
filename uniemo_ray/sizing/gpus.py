"""What common GPUs can do, from their makers' data sheets, and how long a run's work takes on them."""

from dataclasses import dataclass
from typing import Literal

from uniemo_ray.sizing.flops import ImageFlops

Arithmetic = Literal["fp32", "tf32", "bf16"]
UTILISATION = 0.4
"""Share of the peak rate that real work reaches; an estimate, to be replaced by a measured rate."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; rates of dense matrix products in TFLOP a second."""

    name: str
    memory_gb: int
    fp32: float
    tf32: float
    bf16: float
    """fp16 is as fast."""

    def seconds(self, flops: float, arithmetic: Arithmetic) -> float:
        """Time for so many operations at `UTILISATION` of the peak rate."""
        peak: float = getattr(self, arithmetic)
        return flops / (peak * 1e12 * UTILISATION)


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("l4", 24, fp32=30.3, tf32=60.0, bf16=121.0),
        Gpu("l40s", 48, fp32=91.6, tf32=183.0, bf16=362.0),
        Gpu("a100", 80, fp32=19.5, tf32=156.0, bf16=312.0),
        Gpu("h100", 80, fp32=67.0, tf32=494.0, bf16=989.0),
    )
}
"""NVIDIA's data sheets, rates without sparsity; A100 and H100 as SXM modules."""


def find_gpu(name: str) -> Gpu:
    """A GPU by its name, in capitals or not.

    Raises:
        ValueError: an unknown one.
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise ValueError(f"no rates of a GPU {name!r}: expected one of {', '.join(GPUS)}")
    return found


@dataclass(frozen=True)
class GpuHours:
    """Estimated hours of one GPU."""

    gpu: str
    """Its name."""
    training: float
    generation: float
    frozen: float
    """CLIP features, latents, and scores of the generated images."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.generation + self.frozen


def gpu_hours(
    gpu: Gpu,
    flops: ImageFlops,
    *,
    stage1_images: int,
    stage2_images: int,
    generated: int,
    clip_passes: int,
    latents: int,
    training: Arithmetic,
    generation: Arithmetic,
) -> GpuHours:
    """Hours of one GPU for a run's work.

    Args:
        gpu: that does it.
        flops: for one image.
        stage1_images: seen by all steps of stage 1, all epochs and rounds.
        stage2_images: the same of stage 2.
        generated: images that are generated.
        clip_passes: images that pass CLIP's image tower without training: features, encoding, scores.
        latents: images that pass the VAE's encoder.
        training: arithmetic of both stages.
        generation: arithmetic of generation and of all frozen models.
    """
    trained = stage1_images * flops.stage1 + stage2_images * flops.stage2
    frozen = clip_passes * flops.feature + latents * flops.latent
    return GpuHours(
        gpu=gpu.name,
        training=gpu.seconds(trained, training) / 3600,
        generation=gpu.seconds(generated * flops.generated, generation) / 3600,
        frozen=gpu.seconds(frozen, generation) / 3600,
    )
