"""Encoded images to what a model sees in them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from uniemo_ray import UniEmo
from uniemo_ray.data.images import RGB, ImageError, decode_rgb
from uniemo_ray.service.backend import Look, Refusal, Seen

_REASONS = {
    "corrupt": "the file is damaged or no picture",
    "truncated": "the file ends before the picture does",
    "huge": "the picture has too many pixels",
    "unsupported": "this kind of pixels is not supported",
}


class View(NamedTuple):
    """A decoded image, cut to what the model takes."""

    pixels: RGB
    """(side, side, 3)."""
    width: int
    """Pixels of the whole upright image."""
    height: int
    with_attention: bool
    model: str


class Understander:
    """A model that looks at batches of images; an answer does not depend on the others in its batch."""

    def __init__(self, model: UniEmo, *, micro_batch: int, max_pixels: int, names: int, threads: int) -> None:
        """Keep the model.

        Args:
            model: loaded.
            micro_batch: images per pass, filled up at the end.
            max_pixels: largest width x height of an image.
            names: how many scenes and objects to list.
            threads: CPU threads.
        """
        torch.set_num_threads(threads)
        model.freeze_understanding(micro_batch)
        self.model = model
        self.micro_batch, self.max_pixels, self.names = micro_batch, max_pixels, names

    def view(self, look: Look) -> View | Refusal:
        """Decode an image; may run beside passes of the model."""
        try:
            picture = decode_rgb(look.data, self.max_pixels)
        except ImageError as error:
            return Refusal(_REASONS[error.reason])
        height, width = picture.shape[:2]
        return View(self.model.preprocess.square(picture), width, height, look.with_attention, look.model)

    def __call__(self, views: Sequence[View]) -> list[Seen]:
        """One result per image, in order."""
        results: dict[int, Seen] = {}
        for with_attention in (False, True):
            chosen = [i for i, view in enumerate(views) if view.with_attention == with_attention]
            found = self.model.understand_squares(
                [views[i].pixels for i in chosen],
                with_attention=with_attention,
                names=self.names,
                micro_batch=self.micro_batch,
            )
            for i, result in zip(chosen, found, strict=True):
                view = views[i]
                results[i] = Seen(result, view.width, view.height, self.model.parts.fingerprint, len(chosen))
        return [results[i] for i in range(len(views))]

    def understand(self, looks: Sequence[Look]) -> list[Seen | Refusal]:
        """One result per image, in order; an image that cannot be decoded fails alone."""
        views = [self.view(look) for look in looks]
        seen = iter(self([view for view in views if isinstance(view, View)]))
        return [next(seen) if isinstance(view, View) else view for view in views]
