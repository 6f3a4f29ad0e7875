"""The generation plan: one row per image, which alone determines that image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import PLAN, require_columns
from uniemo_ray.seeds import named_seed
from uniemo_ray.store.fingerprint import fingerprint

Kind = Literal["emotion", "plain"]
_RENDERING = ("dtype", "compile", "png_level")


class ImagePlan(Protocol):
    """PLAN rows of any number, never all in memory."""

    @property
    def num_rows(self) -> int:
        """Images."""
        ...

    def slice(self, offset: int, length: int) -> pa.Table:
        """Some of the rows; fewer at the end."""
        ...

    def digest(self, offset: int, length: int) -> str:
        """Hash of what `slice` gives, the same in a larger plan that begins with this one."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlannedImages:
    """`per_emotion` images of each emotion.

    Rows run through the emotions image by image, and a row's seed depends on the run seed and its
    image id alone: with a larger `per_emotion` the old rows stay, in place and unchanged.

    Raises:
        ValueError: for no or a repeated emotion, a count below 1, or a plain prompt that never names the
            emotion.
    """

    round_: int
    """Feedback round, counted from 1; part of the image id."""
    kind: Kind
    """`emotion` conditions on the fused feature, `plain` on the reference prompt."""
    per_emotion: int
    seed: int
    """Run seed."""
    model: str
    """Fingerprint of the model that will generate."""
    diffusion: DiffusionConfig
    """Prompt, sampler and size."""
    generation: GenerationConfig
    """Micro-batch and threads, which are part of what determines an image's bytes."""
    emotions: Sequence[str] = EMOTIONS
    """Wanted emotions, distinct."""

    def __post_init__(self) -> None:
        _validate(self.per_emotion, self.emotions, kind=self.kind, diffusion=self.diffusion)

    @property
    def num_rows(self) -> int:
        """Images."""
        return self.per_emotion * len(self.emotions)

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

    @property
    def _rendering(self) -> dict[str, Any]:
        """What decides the bytes of all rows and is no column, where it is not the default."""
        defaults = GenerationConfig()
        found = {name: getattr(self.generation, name) for name in _RENDERING}
        return {name: value for name, value in found.items() if value != getattr(defaults, name)}

    def _prompt(self, emotion: str) -> str:
        own = self.generation.prompt if self.kind == "emotion" else None
        return prompt_for(emotion, kind=self.kind, diffusion=self.diffusion, own=own)

    @property
    def table(self) -> pa.Table:
        """All PLAN rows, of a plan that fits in memory."""
        return self.slice(0, self.num_rows)

    def slice(self, offset: int, length: int) -> pa.Table:
        """PLAN rows of a range; fewer at the end."""
        settings, rows = self.settings, []
        for number in range(offset, min(offset + length, self.num_rows)):
            index, emotion = number // len(self.emotions), self.emotions[number % len(self.emotions)]
            image_id = f"r{self.round_}-{self.kind}-{emotion}-{index:05d}"
            own = {"image_id": image_id, "emotion": emotion, "seed": named_seed(self.seed, image_id)}
            rows.append(settings | own | {"prompt": self._prompt(emotion)})
        return pa.Table.from_pylist(rows, schema=PLAN)

    def digest(self, offset: int, length: int) -> str:
        """Hash of a range of rows, without making them."""
        return fingerprint(
            {
                **self.settings,
                **self._rendering,
                "round": self.round_,
                "seed": self.seed,
                "prompts": [self._prompt(emotion) for emotion in self.emotions],
                "emotions": list(self.emotions),
                "rows": [offset, min(offset + length, self.num_rows)],
            }
        )


@dataclass(frozen=True)
class TablePlan:
    """A plan that someone has made row by row.

    Raises:
        ValueError: columns that are not PLAN's, or image ids that are there twice.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        require_columns(self.table, PLAN, name="plan")
        if repeated := self.table.num_rows - pc.count_distinct(self.table["image_id"]).as_py():
            raise ValueError(f"image ids of a plan must be distinct, {repeated} rows repeat one")

    @property
    def num_rows(self) -> int:
        """Images."""
        return int(self.table.num_rows)

    def slice(self, offset: int, length: int) -> pa.Table:
        """PLAN rows of a range; fewer at the end."""
        return self.table.slice(offset, length)

    def digest(self, offset: int, length: int) -> str:
        """Hash of a range of rows."""
        return fingerprint({"rows": self.slice(offset, length).to_pylist()})


def prompt_for(emotion: str, *, kind: Kind, diffusion: DiffusionConfig, own: str | None = None) -> str:
    """The prompt of one image.

    Args:
        emotion: `{emotion}` in the plain prompt becomes its name.
        kind: of the image.
        diffusion: has the prompts of training and of the reference.
        own: prompt of generation, where it is not that of training.
    """
    if kind == "plain":
        return diffusion.plain_prompt.replace("{emotion}", emotion.replace("_", " "))
    return own or diffusion.prompt


def _validate(per_emotion: int, emotions: Sequence[str], *, kind: Kind, diffusion: DiffusionConfig) -> None:
    if per_emotion < 1:
        raise ValueError(f"per_emotion must be at least 1, got {per_emotion}")
    if not emotions or len(set(emotions)) != len(emotions):
        raise ValueError(f"emotions must be distinct and not empty, got {list(emotions)}")
    if kind == "plain" and "{emotion}" not in diffusion.plain_prompt:
        raise ValueError(f"diffusion.plain_prompt must contain {{emotion}}, got {diffusion.plain_prompt!r}")
