"""Whether the service can do all that it offers: its models answer, and its store takes generations."""

import asyncio
import logging
from collections import Counter

from uniemo_ray.service.backend import DEFAULT_MODEL, Backend, UnavailableError
from uniemo_ray.service.cached_value import CachedValue
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.kept_bytes import KeptBytes
from uniemo_ray.store.errors import StoreError, StoreFullError

logger = logging.getLogger(__name__)

STORE_FRESH_S, STORE_TIMEOUT_S = 2.0, 5.0
KEPT_FRESH_S = 5.0
MODELS, FULL, REFUSED, SILENT = (
    "the models are not ready",
    "the store of generations is full",
    "the store of generations cannot be written",
    "the store of generations does not answer",
)


class Readiness:
    """Asks the models, and tries to write to the store once in two seconds at most, for all callers."""

    def __init__(self, backend: Backend, generation_store: GenerationStore, *, only_default: bool) -> None:
        """Ask nothing yet.

        Args:
            backend: has the models.
            generation_store: is needed by models that generate.
            only_default: whether there is no model beside `default`.
        """
        self.backend, self.generation_store, self.only_default = backend, generation_store, only_default
        self.store = CachedValue(self._check_store, fresh_s=STORE_FRESH_S, patience_s=2 * STORE_TIMEOUT_S)
        self.kept = KeptBytes(generation_store.store)
        self.kept_bytes = CachedValue(self._measure, fresh_s=KEPT_FRESH_S, patience_s=STORE_TIMEOUT_S)
        self.probe: asyncio.Task[None] | None = None
        self.reported: str | None = None

    async def problem(self) -> str | None:
        """Why the service is not ready; None if it is."""
        if not await self.backend.is_ready():
            return MODELS
        problem = await self.store.get()
        return None if problem is None or await self._only_understands() else problem

    async def _measure(self) -> Counter[str]:
        return await asyncio.to_thread(self.kept.by_owner)

    async def _only_understands(self) -> bool:
        try:
            return self.only_default and not (await self.backend.describe(DEFAULT_MODEL)).paintable
        except UnavailableError:
            return False

    async def _check_store(self) -> str | None:
        if self.probe is None or self.probe.done():
            self.probe = asyncio.create_task(asyncio.to_thread(self.generation_store.check_writable))
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await asyncio.shield(self.probe)  # one that hangs is not joined by more
        except TimeoutError:
            return self._report(SILENT, "")
        except StoreFullError as error:
            return self._report(FULL, str(error))
        except (StoreError, OSError) as error:
            return self._report(REFUSED, str(error))
        return self._report(None, "")

    def _report(self, problem: str | None, detail: str) -> str | None:
        """Log a change. The detail names a path, so it is not for callers."""
        if problem != self.reported:
            self.reported = problem
            if problem is None:
                logger.info("the store of generations can be written again")
            else:
                logger.error("%s: %s", problem, detail)
        return problem
