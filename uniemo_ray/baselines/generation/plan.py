"""What a baseline is to paint: rows like those of the run's own images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.feedback.plan import Kind
from uniemo_ray.feedback.schema import PLAN
from uniemo_ray.seeds import named_seed
from uniemo_ray.store.fingerprint import fingerprint

_RENDERING = ("dtype", "compile", "png_level")


@dataclass(frozen=True, kw_only=True)
class BaselinePlan:
    """`per_emotion` images of each label, an `ImagePlan`.

    Rows run through the labels image by image, so that a plan of more images begins with a smaller one. All
    baselines of a run give an image of the same label and number the same seed: they differ in method and not
    in noise.
    """

    baseline: str
    """Which one; part of the image id."""
    kind: Kind
    """`plain` for prompts of words, `emotion` for those with a learnt condition."""
    prompts: Mapping[str, str]
    """Prompt of each label, in the order of the labels."""
    per_emotion: int
    seed: int
    """Run seed."""
    model: str
    """Fingerprint of what will paint."""
    diffusion: DiffusionConfig
    """Sampler and size."""
    generation: GenerationConfig
    """Micro-batch and threads, which are part of what determines an image's bytes."""

    @property
    def num_rows(self) -> int:
        """Images."""
        return self.per_emotion * len(self.prompts)

    @property
    def settings(self) -> dict[str, Any]:
        """What all rows have in common."""
        return {
            "kind": self.kind,
            "steps": self.diffusion.steps,
            "guidance": self.diffusion.guidance,
            "scheduler": self.diffusion.scheduler,
            "width": self.diffusion.size_px,
            "height": self.diffusion.size_px,
            "micro_batch": self.generation.micro_batch,
            "threads": self.generation.threads,
            "model": self.model,
        }

    def slice(self, offset: int, length: int) -> pa.Table:
        """PLAN rows of a range; fewer at the end."""
        labels, settings, rows = list(self.prompts), self.settings, []
        for number in range(offset, min(offset + length, self.num_rows)):
            label = labels[number % len(labels)]
            name = f"{label}-{number // len(labels):05d}"
            own = {"image_id": f"{self.baseline}-{name}", "emotion": label, "prompt": self.prompts[label]}
            rows.append(settings | own | {"seed": named_seed(self.seed, f"baseline-{name}")})
        return pa.Table.from_pylist(rows, schema=PLAN)

    def digest(self, offset: int, length: int) -> str:
        """Hash of a range of rows, without making them."""
        return fingerprint(
            {
                **self.settings,
                "rendering": {name: getattr(self.generation, name) for name in _RENDERING},
                "baseline": self.baseline,
                "seed": self.seed,
                "prompts": [list(item) for item in self.prompts.items()],
                "rows": [offset, min(offset + length, self.num_rows)],
            }
        )
