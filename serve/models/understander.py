"""Encoded images to what a model sees in them."""

from collections.abc import Sequence

import torch

from serve.backend import Look, Refusal, Seen
from uniemo_ray import UniEmo
from uniemo_ray.data.images import RGB, ImageError, decode_rgb
from uniemo_ray.inference.uniemo import UnderstandResult

_REASONS = {
    "corrupt": "the file is damaged or no picture",
    "truncated": "the file ends before the picture does",
    "huge": "the picture has too many pixels",
    "unsupported": "this kind of pixels is not supported",
}


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
        self.model = model
        self.micro_batch, self.max_pixels, self.names = micro_batch, max_pixels, names

    def __call__(self, looks: Sequence[Look]) -> list[Seen | Refusal]:
        """One result per image, in order; an image that cannot be decoded fails alone."""
        pictures = [self._decode(look.data) for look in looks]
        results: list[Seen | Refusal] = [p if isinstance(p, Refusal) else _NOT_YET for p in pictures]
        for with_attention in (False, True):
            chosen = [
                (i, picture)
                for i, (look, picture) in enumerate(zip(looks, pictures, strict=True))
                if look.with_attention == with_attention and not isinstance(picture, Refusal)
            ]
            seen = self._understand([picture for _, picture in chosen], with_attention=with_attention)
            for (i, picture), result in zip(chosen, seen, strict=True):
                height, width = picture.shape[:2]
                results[i] = Seen(result, width, height, self.model.parts.fingerprint, len(chosen))
        return results

    def _decode(self, data: bytes) -> RGB | Refusal:
        try:
            return decode_rgb(data, self.max_pixels)
        except ImageError as error:
            return Refusal(_REASONS[error.reason])

    def _understand(self, pictures: list[RGB], *, with_attention: bool) -> list[UnderstandResult]:
        if not pictures:
            return []
        return self.model.understand(
            pictures, with_attention=with_attention, names=self.names, micro_batch=self.micro_batch
        )


_NOT_YET = Refusal("the image was not looked at", is_ours=True)
