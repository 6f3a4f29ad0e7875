"""Generation of images, in batches of requests."""

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
"""Quality of WebP and JPEG files."""
ABANDONED = Refusal("the caller no longer waits for this image")
PREVIEWS = 8
"""Most previews of an image; each of them costs a decoding of latents."""


class SamplingProgress(NamedTuple):
    """Progress of one image."""

    step: int
    """Finished sampling steps."""
    of: int
    """Sampling steps in all."""
    preview: bytes | None
    """The unfinished image (WebP); None at most steps."""


@dataclass(eq=False)
class ImageRequest:
    """One image to generate, and the caller that waits for it."""

    model: str
    """Name of the model."""
    request: Request
    settings: SamplingSettings
    format: Format
    on_step: Callable[[SamplingProgress], None] | None = None
    """Called in the thread that runs the model."""
    is_cancelled: bool = False
    """Set by a caller that no longer waits. A batch stops when all its requests are cancelled."""


class ImageGenerator:
    """A model that generates images in batches. An image does not depend on the rest of its batch.

    Only one call may run at a time: with two threads in one model, torch's kernels do not always give the
    same bits.
    """

    def __init__(self, model: UniEmo, *, micro_batch: int, threads: int) -> None:
        """Keep the model.

        Args:
            model: loaded.
            micro_batch: images per pass of the sampler. It affects the bytes of images.
            threads: CPU threads. They affect the bytes of images.
        """
        self.model, self.micro_batch, self.threads = model, micro_batch, threads
        self.between_steps: Callable[[], None] | None = None
        """Called after each sampling step, in the thread that runs the model."""

    def image_requests(self, params: GenerationParams) -> list[ImageRequest] | Refusal:
        """One request per image, or why this model cannot generate them."""
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
        """Generate images, in order. Requests with equal settings share micro-batches."""
        results: list[EncodedImage | Refusal] = [ABANDONED] * len(image_requests)
        groups: dict[SamplingSettings, list[int]] = {}
        for i, image_request in enumerate(image_requests):
            if not image_request.is_cancelled:
                groups.setdefault(image_request.settings, []).append(i)
        for settings, indices in groups.items():
            found = self._generate([image_requests[i] for i in indices], settings)
            for i, result in zip(indices, found, strict=True):
                results[i] = result
        return results

    def _generate(
        self, image_requests: list[ImageRequest], settings: SamplingSettings
    ) -> list[EncodedImage | Refusal]:
        def watch(step: Step) -> bool:
            if self.between_steps is not None:
                self.between_steps()
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
    """Report a step to the callers that still wait; returns whether there are any."""
    waiting = [
        (row, image_requests[i]) for row, i in enumerate(step.indices) if not image_requests[i].is_cancelled
    ]
    watched = [(row, request.on_step) for row, request in waiting if request.on_step is not None]
    pictures = step.preview() if watched and _is_preview_due(step) else None
    for row, on_step in watched:
        preview = None if pictures is None else _webp(Image.fromarray(pictures[row]))
        on_step(SamplingProgress(step.number, step.of, preview))
    return bool(waiting)


def _is_preview_due(step: Step) -> bool:
    """Whether a step has a preview: at most PREVIEWS steps do, evenly spread, and never the last one."""
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
        return ABANDONED
    return Refusal(detail, _field(detail), is_server_error=kind == "non_finite")


def _field(detail: str) -> str | None:
    """The field of a request that a message of the model is about."""
    words = {"prompt": "prompt", "width": "width", "height": "height", "emotion": "emotion", "steps": "steps"}
    return next((field for word, field in words.items() if word in detail), None)
