"""Pictures that an endpoint understands itself: no hop, as long as there is room."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from uniemo_ray.service.backend import DEFAULT_MODEL, Look, Refusal, Seen

Understand = Callable[[Look], Awaitable[Seen | Refusal]]


class OwnLooks:
    """A model in this very process; when it is full, there is no room."""

    def __init__(self, understand_one: Understand, *, most: int) -> None:
        """Keep the model.

        Args:
            understand_one: understands a picture with the model `default`, together with others that wait.
            most: pictures at once.
        """
        self.understand_one, self.most, self.count = understand_one, most, 0

    def has_room(self, looks: Sequence[Look]) -> bool:
        """Whether all of them may come."""
        is_ours = looks[0].model == DEFAULT_MODEL
        return is_ours and self.count + len(looks) <= self.most

    async def understand(self, looks: Sequence[Look]) -> list[Seen | Refusal]:
        """One result per image, in order; only when there is room."""
        self.count += len(looks)
        try:
            return await asyncio.gather(*(self.understand_one(look) for look in looks))
        finally:
            self.count -= len(looks)
