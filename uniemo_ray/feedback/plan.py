"""The generation plan: one row per image, which alone determines that image."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.emotions import EMOTIONS, emotion_index
from uniemo_ray.feedback.schema import PLAN
from uniemo_ray.feedback.seeds import stable_seed

Kind = Literal["emotion", "plain"]


def plan_images(
    *,
    round_: int,
    kind: Kind,
    per_emotion: int,
    seed: int,
    model: str,
    diffusion: DiffusionConfig,
    generation: GenerationConfig,
    emotions: Sequence[str] = EMOTIONS,
) -> pa.Table:
    """Plan `per_emotion` images of each emotion, as a PLAN table.

    Rows run through the emotions image by image, and a row's seed depends on the run seed and its
    image id alone: with a larger `per_emotion` the old rows stay, in place and unchanged.

    Args:
        round_: feedback round, counted from 1; part of the image id.
        kind: `emotion` conditions on the fused feature, `plain` on the reference prompt.
        per_emotion: images per emotion.
        seed: run seed.
        model: fingerprint of the model that will generate.
        diffusion: prompt, sampler and size.
        generation: micro-batch and threads, which are part of what determines an image's bytes.
        emotions: wanted emotions, distinct.

    Raises:
        ValueError: for an unknown or repeated emotion, a count below 1, or a plain prompt that
            never names the emotion.
    """
    _validate(per_emotion, emotions, kind=kind, diffusion=diffusion)
    settings = {
        "kind": kind,
        "steps": diffusion.steps,
        "guidance": diffusion.guidance,
        "scheduler": diffusion.scheduler,
        "width": diffusion.size_px,
        "height": diffusion.size_px,
        "micro_batch": generation.micro_batch,
        "threads": generation.threads,
        "model": model,
    }
    rows = []
    for index in range(per_emotion):
        for emotion in emotions:
            image_id = f"r{round_}-{kind}-{emotion}-{index:05d}"
            own = {"image_id": image_id, "emotion": emotion, "seed": stable_seed(seed, image_id)}
            rows.append(settings | own | {"prompt": prompt_for(emotion, kind=kind, diffusion=diffusion)})
    return pa.Table.from_pylist(rows, schema=PLAN)


def prompt_for(emotion: str, *, kind: Kind, diffusion: DiffusionConfig) -> str:
    """The prompt of one image; `{emotion}` in the plain prompt becomes the emotion's name."""
    return diffusion.prompt if kind == "emotion" else diffusion.plain_prompt.replace("{emotion}", emotion)


def _validate(per_emotion: int, emotions: Sequence[str], *, kind: Kind, diffusion: DiffusionConfig) -> None:
    if per_emotion < 1:
        raise ValueError(f"per_emotion must be at least 1, got {per_emotion}")
    for emotion in emotions:
        emotion_index(emotion)
    if not emotions or len(set(emotions)) != len(emotions):
        raise ValueError(f"emotions must be distinct and not empty, got {list(emotions)}")
    if kind == "plain" and "{emotion}" not in diffusion.plain_prompt:
        raise ValueError(f"diffusion.plain_prompt must contain {{emotion}}, got {diffusion.plain_prompt!r}")
