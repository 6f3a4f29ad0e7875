"""Understanding of encoded images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from uniemo_ray import UniEmo
from uniemo_ray.data.images import RGB, ImageError, decode_rgb
from uniemo_ray.service.backend import ImageInput, ImageOutput, Refusal
from uniemo_ray.service.settings import RETRY_AFTER_S

_REASONS = {
    "corrupt": "the file is damaged or not an image",
    "truncated": "the file ends before the image does",
    "huge": "the image has too many pixels",
    "thin": "one side of the image is more than 100 times the other",
    "unsupported": "this pixel format is not supported",
}


class DecodedImage(NamedTuple):
    """A decoded image, cropped and scaled for the model."""

    pixels: RGB
    """(side, side, 3)."""
    width: int
    """Width of the whole upright image in pixels."""
    height: int
    """Height of the whole upright image in pixels."""
    with_attention: bool
    model: str


class Understander:
    """A model that understands images in batches. A result does not depend on the rest of its batch."""

    def __init__(self, model: UniEmo, *, micro_batch: int, max_pixels: int, names: int, threads: int) -> None:
        """Keep the model.

        Args:
            model: loaded.
            micro_batch: images per pass. The last pass is padded.
            max_pixels: largest width x height of an image.
            names: how many scenes and objects to list.
            threads: CPU threads.
        """
        torch.set_num_threads(threads)
        model.freeze_understanding(micro_batch)
        self.model = model
        self.micro_batch, self.max_pixels, self.names = micro_batch, max_pixels, names

    def decode(self, image: ImageInput) -> DecodedImage | Refusal:
        """Decode an image. Another thread may run the model meanwhile."""
        try:
            picture = decode_rgb(image.data, self.max_pixels)
            square = self.model.preprocess.square(picture)
        except ImageError as error:
            return Refusal(_REASONS[error.reason])
        except MemoryError:
            return Refusal("the server has not enough memory for this image now", retry_after_s=RETRY_AFTER_S)
        height, width = picture.shape[:2]
        return DecodedImage(square, width, height, image.with_attention, image.model)

    def __call__(self, images: Sequence[DecodedImage]) -> list[ImageOutput]:
        """Understand images; returns one result per image, in order."""
        results: dict[int, ImageOutput] = {}
        for with_attention in (False, True):
            chosen = [i for i, image in enumerate(images) if image.with_attention == with_attention]
            found = self.model.understand_squares(
                [images[i].pixels for i in chosen],
                with_attention=with_attention,
                names=self.names,
                micro_batch=self.micro_batch,
            )
            fingerprint = self.model.parts.fingerprint
            for i, result in zip(chosen, found, strict=True):
                width, height = images[i].width, images[i].height
                results[i] = ImageOutput(result, width, height, fingerprint, len(chosen))
        return [results[i] for i in range(len(images))]

    def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Decode and understand images, in order. An image that cannot be decoded gives a refusal."""
        decoded = [self.decode(image) for image in images]
        outputs = iter(self([image for image in decoded if isinstance(image, DecodedImage)]))
        return [next(outputs) if isinstance(image, DecodedImage) else image for image in decoded]
