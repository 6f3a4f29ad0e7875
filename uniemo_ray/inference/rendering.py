"""How an actor computes and stores images, beside what their plan rows say."""

import json
import shutil
from dataclasses import dataclass

import torch

from uniemo_ray.config import PNG_LEVEL, GenerationConfig
from uniemo_ray.inference.model_folder import Dtype
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.speed import compile_parts


@dataclass(frozen=True)
class Rendering:
    """Settings of the generating actors. All of them decide an image's bytes."""

    dtype: Dtype | None = None
    """Number format of denoiser and text encoders; None as the model folder says."""
    is_compiled: bool = False
    """Whether a GPU runs the denoiser through `torch.compile`."""
    png_level: int = PNG_LEVEL
    """Effort of PNG's compression, 0 to 9."""

    @staticmethod
    def of(config: GenerationConfig) -> "Rendering":
        """The settings of a run."""
        return Rendering(config.dtype, config.compile, config.png_level)

    @staticmethod
    def read(versions: str) -> "Rendering":
        """What an image's `versions` say."""
        said = json.loads(versions)
        level = said.get("png_level", PNG_LEVEL)
        return Rendering(said.get("dtype"), bool(said.get("compile")), level)

    def stated(self, processor: str) -> dict[str, str | int | bool]:
        """What an image's `versions` hold of it: what is not the default."""
        found: dict[str, str | int | bool] = {}
        if self.dtype is not None:
            found["dtype"] = self.dtype
        if self.png_level != PNG_LEVEL:
            found["png_level"] = self.png_level
        if self.is_compiled and processor == "cuda":
            found["compile"] = True
        return found

    def compile(self, diffusion: DiffusionParts, device: torch.device) -> None:
        """Compile the denoiser, in place, on a GPU and where that is wanted.

        Raises:
            ValueError: this machine cannot compile.
        """
        if not (self.is_compiled and device.type == "cuda"):
            return
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            raise ValueError(
                "generation.compile needs a C compiler on every machine that generates: install gcc there, "
                "or set generation.compile=false"
            )
        compile_parts([diffusion.denoiser])


DEFAULT = Rendering()
"""The defaults."""
