"""The backend over Ray Serve's handles: one call per image, so that batches form across requests."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from uniemo_ray.service.api.metrics_snapshot import MetricsSnapshot
from uniemo_ray.service.backend import (
    DEFAULT_MODEL,
    EncodedImage,
    GenerationParams,
    ImageInput,
    ImageOutput,
    ModelDescription,
    Refusal,
    UnavailableError,
)
from uniemo_ray.service.cached_value import CachedValue
from uniemo_ray.service.generation_tracker import GenerationTracker
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

logger = logging.getLogger(__name__)

PAUSES_S = (0.1, 0.3, 1.0)
"""Before further tries: every call gives the same result again, so what a dying replica took is repeated."""
READY_TIMEOUT_S, READY_FRESH_S = 5.0, 1.0
HEARD_FRESH_S = 30.0
"""So long a replica that has answered counts as there, though it has no time for a ping; one for generation
as long as its work may take."""
MODEL_FRESH_S, MODEL_PATIENCE_S = 5.0, 0.5
"""Deployments are updated one after the other, so an endpoint may have asked the model that goes."""
EXCHANGE_TIMEOUT_S = 10.0
Handle = DeploymentHandle[Any]
_REJECTED_WITHIN_S = 0.05
"""A full queue rejects at once; what is still there after this was taken."""


class FullError(UnavailableError):
    """There are replicas, and enough waits for them."""


class HandleBackend:
    """Calls the model deployments."""

    def __init__(
        self,
        understanding: Handle,
        generation: Handle,
        *,
        generation_store: GenerationStore,
        limits: Limits,
        inline: InlineInference | None = None,
    ) -> None:
        self.understanding, self.generation = (_light(handle) for handle in (understanding, generation))
        self.inline, self.limits = inline, limits
        self.descriptions: dict[str, CachedValue[ModelDescription]] = {}
        self.ready = CachedValue(self._ask_ready, fresh_s=READY_FRESH_S, patience_s=READY_TIMEOUT_S)
        self.heard_at: dict[str, float] = {}
        self.running = GenerationTracker(generation_store)

    async def is_ready(self) -> bool:
        """Whether replicas of each kind are there; asked once a second at most, for all callers."""
        return await self.ready.get()

    async def _ask_ready(self) -> bool:
        return all(await _all(self._answers(handle) for handle in (self.understanding, self.generation)))

    async def _answers(self, handle: Handle) -> bool:
        """Being busy is not being away: a full queue is no failure, nor a ping that waits behind work."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await _call(handle.ping.remote)
        except FullError:
            return True
        except TimeoutError:
            return self._was_heard(handle)
        except UnavailableError:
            return False
        self._hear(handle)
        return True

    def _hear(self, handle: Handle) -> None:
        self.heard_at[handle.deployment_name] = time.monotonic()

    def _was_heard(self, handle: Handle) -> bool:
        heard_at = self.heard_at.get(handle.deployment_name)
        fresh_s = self.limits.generate_timeout_s if handle is self.generation else HEARD_FRESH_S
        return heard_at is not None and time.monotonic() - heard_at < fresh_s

    async def describe(self, model: str) -> ModelDescription:
        """The model behind a name, which an update may change."""
        if model not in self.descriptions:
            ask = partial(_call, partial(_for(self.generation, model).describe.remote, model))
            self.descriptions[model] = CachedValue(ask, fresh_s=MODEL_FRESH_S, patience_s=MODEL_PATIENCE_S)
        return await self.descriptions[model].get()

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Here, or with one call per image."""
        if self.inline is not None and self.inline.has_room(images):
            return await self.inline.understand(images)
        handle = _for(self.understanding, images[0].model)
        seen = await _all(_call(partial(handle.look.remote, image)) for image in images)
        self._hear(handle)
        return seen

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """One call per image: image i is what seed + i gives."""
        handle = _for(self.generation, params.model)
        singles = [replace(params, n=1, seed=params.seed + i) for i in range(params.n)]
        images: list[EncodedImage] = []
        for result in await _all(_call(partial(handle.paint.remote, one)) for one in singles):
            if isinstance(result, Refusal):
                return result
            images.append(result)
        self._hear(handle)
        return images

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """One call for all images; the replica reports to the generation store, whoever still listens."""
        handle = _for(self.generation, params.model)
        call = asyncio.create_task(self._run(handle, generation_id, params))
        try:
            done, _ = await asyncio.wait([call], timeout=_REJECTED_WITHIN_S)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if done and isinstance(error := call.exception(), UnavailableError):
            raise error
        return self.running.begin(generation_id, call)

    async def _run(self, handle: Handle, generation_id: str, params: GenerationParams) -> None:
        await _call(partial(handle.run.remote, generation_id, params))
        self._hear(handle)

    async def close(self) -> None:
        """Generations are calls of this process: those that wait in its queue would vanish with it."""
        await self.running.finish(within_s=2 * self.limits.generate_timeout_s)


class HandlePeers:
    """The other endpoint replicas, through the deployment that adds up."""

    def __init__(self, aggregator: Handle) -> None:
        self.aggregator, self.replica = _light(aggregator), secrets.token_hex(8)

    async def exchange(self, counts: MetricsSnapshot) -> MetricsSnapshot:
        """Hand in our numbers; returns everybody's. Raises UnavailableError."""
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                total: MetricsSnapshot = await _call(
                    partial(self.aggregator.exchange.remote, self.replica, counts)
                )
        except TimeoutError:
            raise UnavailableError(
                "the replicas' numbers cannot be added up", retry_after_s=RETRY_AFTER_S
            ) from None
        return total


def _light(handle: Handle) -> Handle:
    """Both ends have the same classes: plain pickles do, and save an image 2 ms on its way."""
    return handle.options(request_serialization="pickle", response_serialization="pickle")


def _for(handle: Handle, model: str) -> Handle:
    """The handle that prefers replicas which have a model loaded."""
    return handle if model == DEFAULT_MODEL else handle.options(multiplexed_model_id=model)


async def _call(ask: Callable[[], Any]) -> Any:
    """The result of a call, repeated when its replica died. Raises UnavailableError."""
    for pause_s in (0.0, *PAUSES_S):
        await asyncio.sleep(pause_s)
        response = ask()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            raise FullError("too much waits already", retry_after_s=RETRY_AFTER_S) from None
        except (RayActorError, RequestCancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None  # it was us who left
            logger.warning("a replica went away: %s", type(error).__name__)
        except DeploymentUnavailableError:
            break
    raise UnavailableError("no replica answers", retry_after_s=RETRY_AFTER_S)


async def _all(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results in order; when one fails, the others are cancelled."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
