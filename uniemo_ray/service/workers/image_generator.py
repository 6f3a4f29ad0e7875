"""Orders to generated images, many orders at a time."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from uniemo_ray import UniEmo
from uniemo_ray.inference.provenance import GeneratedImage
from uniemo_ray.inference.requests import Failure, Request, SamplingSettings, Step
from uniemo_ray.service.backend import EncodedImage, Format, GenerationParams, Refusal

QUALITY = 92
"""Of WebP and JPEG."""
GONE = Refusal("nobody waits for this image any more")
PREVIEWS = 8
"""Looks at an unfinished image; each costs a decoding."""


class SamplingProgress(NamedTuple):
    """How far an image is."""

    step: int
    """Finished ones."""
    of: int
    preview: bytes | None
    """WebP of the image as it is now, at some steps."""


@dataclass(eq=False)
class ImageRequest:
    """One image to paint, and whoever waits for it."""

    model: str
    """Name of the model."""
    request: Request
    settings: SamplingSettings
    format: Format
    on_step: Callable[[SamplingProgress], None] | None = None
    """Called from the painting thread."""
    is_cancelled: bool = False
    """Set by whoever no longer waits; the painter stops when nobody does."""


class ImageGenerator:
    """A model that paints batches of image_requests; an image does not depend on the others in its batch.

    One call at a time: with two threads in one model, torch's kernels do not always give the same bits.
    """

    def __init__(self, model: UniEmo, *, micro_batch: int, threads: int) -> None:
        """Keep the model.

        Args:
            model: loaded.
            micro_batch: images per pass of the sampler, part of what determines an image's bytes.
            threads: CPU threads, likewise.
        """
        self.model, self.micro_batch, self.threads = model, micro_batch, threads

    def image_requests(self, params: GenerationParams) -> list[ImageRequest] | Refusal:
        """One image_request per image of an order, or why this model cannot paint it."""
        diffusion = self.model.parts.config.diffusion
        size = (params.width or diffusion.size_px, params.height or diffusion.size_px)
        try:
            plan = self.model.plan(
                dict(params.emotions),
                params.prompt,
                n=params.n,
                seed=params.seed,
                steps=params.steps,
                guidance=params.guidance,
                size=size,
                mix=params.mix,
                micro_batch=self.micro_batch,
            )
            self.model.painter.check(plan.settings, threads=self.threads)
        except ValueError as error:
            return Refusal(str(error), _field(str(error)))
        return [
            ImageRequest(params.model, request, plan.settings, params.format) for request in plan.requests
        ]

    def __call__(self, image_requests: Sequence[ImageRequest]) -> list[EncodedImage | Refusal]:
        """One result per image_request, in order; those with equal settings share micro-batches."""
        results: list[EncodedImage | Refusal] = [GONE] * len(image_requests)
        groups: dict[SamplingSettings, list[int]] = {}
        for i, image_request in enumerate(image_requests):
            if not image_request.is_cancelled:
                groups.setdefault(image_request.settings, []).append(i)
        for settings, indices in groups.items():
            painted = self._paint([image_requests[i] for i in indices], settings)
            for i, result in zip(indices, painted, strict=True):
                results[i] = result
        return results

    def _paint(
        self, image_requests: list[ImageRequest], settings: SamplingSettings
    ) -> list[EncodedImage | Refusal]:
        def watch(step: Step) -> bool:
            return _report(step, image_requests)

        requests = [image_request.request for image_request in image_requests]
        images = self.model.paint(requests, settings, threads=self.threads, watch=watch)
        return [
            _refusal(image)
            if isinstance(image, Failure)
            else _encode(image, image_request.format, len(image_requests))
            for image_request, image in zip(image_requests, images, strict=True)
        ]


def _report(step: Step, image_requests: list[ImageRequest]) -> bool:
    """Tell whoever waits; False when nobody does."""
    waiting = [
        (place, image_requests[i])
        for place, i in enumerate(step.indices)
        if not image_requests[i].is_cancelled
    ]
    watched = [
        (place, image_request.on_step)
        for place, image_request in waiting
        if image_request.on_step is not None
    ]
    pictures = step.preview() if watched and _is_due(step) else None
    for place, on_step in watched:
        preview = None if pictures is None else _webp(Image.fromarray(pictures[place]))
        on_step(SamplingProgress(step.number, step.of, preview))
    return bool(waiting)


def _is_due(step: Step) -> bool:
    """At most PREVIEWS times, evenly spread; not at the end, when the image itself comes."""
    return step.number < step.of and step.number % max(1, -(-step.of // PREVIEWS)) == 0


def _encode(image: GeneratedImage, kind: Format, batch: int) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({} if kind == "png" else {"quality": QUALITY}))
    return EncodedImage(buffer.getvalue(), image.provenance, batch)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=60, method=0)
    return buffer.getvalue()


def _refusal(failure: Failure) -> Refusal:
    kind, _, detail = failure.reason.partition(": ")
    if kind == "stopped":
        return GONE
    return Refusal(detail, _field(detail), is_ours=kind == "non_finite")


def _field(detail: str) -> str | None:
    """Which field of a request a message of the model is about."""
    words = {"prompt": "prompt", "width": "width", "height": "height", "emotion": "emotion", "steps": "steps"}
    return next((field for word, field in words.items() if word in detail), None)
