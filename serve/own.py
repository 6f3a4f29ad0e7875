"""Pictures that an endpoint understands itself: no hop, as long as there is room."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

from serve.backend import DEFAULT_MODEL, Look, Refusal, Seen

logger = logging.getLogger(__name__)

Understand = Callable[[Look], Awaitable[Seen | Refusal]]


class OwnLooks:
    """A model in this very process, loaded beside its work: before, and when it is full, there is no room."""

    def __init__(self, load: Callable[[], Understand], *, most: int) -> None:
        """Begin to load.

        Args:
            load: gives what understands a picture of the model `default`, together with others that wait.
            most: pictures at once.
        """
        self.most, self.count = most, 0
        self.understand_one: Understand | None = None
        self.loading = threading.Thread(target=self._load, args=(load,), name="load", daemon=True)
        self.loading.start()

    def _load(self, load: Callable[[], Understand]) -> None:
        try:
            self.understand_one = load()
        except Exception as error:  # the replicas for understanding, which must load it too, do all the work
            logger.error(
                "this endpoint cannot load the model itself: %s", type(error).__name__, exc_info=error
            )

    def has_room(self, looks: Sequence[Look]) -> bool:
        """Whether all of them may come."""
        is_ours = looks[0].model == DEFAULT_MODEL
        return is_ours and self.understand_one is not None and self.count + len(looks) <= self.most

    async def understand(self, looks: Sequence[Look]) -> list[Seen | Refusal]:
        """One result per image, in order; only when there is room."""
        assert self.understand_one is not None
        self.count += len(looks)
        try:
            return await asyncio.gather(*(self.understand_one(look) for look in looks))
        finally:
            self.count -= len(looks)
