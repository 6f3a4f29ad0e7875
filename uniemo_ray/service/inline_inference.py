"""Pictures that an endpoint understands itself: no hop, as long as there is room."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, ImageOutput, Refusal

Understand = Callable[[ImageInput], Awaitable[ImageOutput | Refusal]]


class InlineInference:
    """A model in this very process; when it is full, there is no room."""

    def __init__(self, understand_one: Understand, *, most: int) -> None:
        """Keep the model.

        Args:
            understand_one: understands a picture with the model `default`, together with others that wait.
            most: pictures at once.
        """
        self.understand_one, self.most, self.count = understand_one, most, 0

    def has_room(self, images: Sequence[ImageInput]) -> bool:
        """Whether all of them may come."""
        is_ours = images[0].model == DEFAULT_MODEL
        return is_ours and self.count + len(images) <= self.most

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """One result per image, in order; only when there is room."""
        self.count += len(images)
        try:
            return await asyncio.gather(*(self.understand_one(image) for image in images))
        finally:
            self.count -= len(images)
