"""Understanding in the endpoint's own process, which saves a call to a replica while there is room."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, ImageOutput, Refusal

UnderstandOne = Callable[[ImageInput], Awaitable[ImageOutput | Refusal]]


class InlineInference:
    """The default model in this process, for a limited number of images at once."""

    def __init__(
        self,
        understand_one: UnderstandOne,
        *,
        max_images: int,
        check_health: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the model.

        Args:
            understand_one: understands an image with the model `default`, in a batch with others that wait.
            max_images: most images at once.
            check_health: raises when the model of this process is of no use any more.
        """
        self.understand_one, self.max_images, self.count = understand_one, max_images, 0
        self.check_health = check_health

    def has_room(self, images: Sequence[ImageInput]) -> bool:
        """Whether all the images can be understood here now."""
        is_default = images[0].model == DEFAULT_MODEL
        return is_default and self.count + len(images) <= self.max_images

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Understand images for which there is room; returns one result per image, in order."""
        self.count += len(images)
        try:
            return await asyncio.gather(*(self.understand_one(image) for image in images))
        finally:
            self.count -= len(images)
