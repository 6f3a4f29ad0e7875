"""The backend over Ray Serve's handles. It makes one call per image, so that batches form across requests."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
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
from uniemo_ray.service.replica_health import RESPONSE_TIMEOUT_S, has_responsive_replica
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

logger = logging.getLogger(__name__)

RETRY_PAUSES_S = (0.1, 0.3, 1.0)
"""Pauses before a call whose replica died is repeated. Equal calls give equal results."""
READY_TIMEOUT_S, READY_FRESH_S = 4.0, 1.0
ALIVE_AFTER_ANSWER_S = 30.0
"""How long a replica that has answered counts as ready although it has no time for a ping, as long as it
passes Serve's health check. A replica for generation counts as ready for as long as its work may take."""
MODEL_FRESH_S, MODEL_PATIENCE_S = 5.0, 0.5
"""Age and waiting time of a model description. Deployments are updated one after the other, so an endpoint
may have asked a replica that is about to be replaced."""
EXCHANGE_TIMEOUT_S = 10.0
Handle = DeploymentHandle[Any]
_REJECTED_WITHIN_S = 0.05
"""A full queue rejects a call at once. A call that is still open after this time was accepted."""


class FullError(UnavailableError):
    """There are replicas, but their queue is full."""


class HandleBackend:
    """Calls the deployments of the models."""

    def __init__(
        self,
        understanding: Handle,
        generation: Handle,
        *,
        generation_store: GenerationStore,
        limits: Limits,
        inline: InlineInference | None = None,
        responds: Callable[[Handle], Awaitable[bool]] = has_responsive_replica,
    ) -> None:
        self.understanding, self.generation = (_pickled(handle) for handle in (understanding, generation))
        self.inline, self.limits, self.responds = inline, limits, responds
        self.descriptions: dict[str, CachedValue[ModelDescription]] = {}
        patience_s = READY_TIMEOUT_S + RESPONSE_TIMEOUT_S
        self.ready = CachedValue(self._check_ready, fresh_s=READY_FRESH_S, patience_s=patience_s)
        self.answered_at: dict[str, float] = {}
        self.tracker = GenerationTracker(generation_store)

    async def is_ready(self) -> bool:
        """Whether each kind of work has replicas; they are pinged once a second at most, for all callers."""
        return await self.ready.get()

    async def _check_ready(self) -> bool:
        handles = (self.understanding, self.generation)
        return all(await _gather(self._is_alive(handle) for handle in handles))

    async def _is_alive(self, handle: Handle) -> bool:
        """Whether a deployment works. A full queue, or a ping that waits behind work, is no failure.

        A replica that hangs looks the same to a ping, so such a deployment must also pass a health check.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await _call(handle.ping.remote)
        except FullError:
            return await self.responds(handle)
        except TimeoutError:
            return self._has_answered_lately(handle) and await self.responds(handle)
        except UnavailableError:
            return False
        self._note_answer(handle)
        return True

    def _note_answer(self, handle: Handle) -> None:
        self.answered_at[handle.deployment_name] = time.monotonic()

    def _has_answered_lately(self, handle: Handle) -> bool:
        answered_at = self.answered_at.get(handle.deployment_name)
        limit_s = self.limits.generate_timeout_s if handle is self.generation else ALIVE_AFTER_ANSWER_S
        return answered_at is not None and time.monotonic() - answered_at < limit_s

    async def describe(self, model: str) -> ModelDescription:
        """Describe the model of a name, which an update may change."""
        if model not in self.descriptions:
            fetch = partial(_call, partial(_handle_for(self.generation, model).describe.remote, model))
            self.descriptions[model] = CachedValue(fetch, fresh_s=MODEL_FRESH_S, patience_s=MODEL_PATIENCE_S)
        return await self.descriptions[model].get()

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Understand images in this process if it has room, else with one call per image."""
        if self.inline is not None and self.inline.has_room(images):
            return await self.inline.understand(images)
        handle = _handle_for(self.understanding, images[0].model)
        outputs = await _gather(_call(partial(handle.understand_one.remote, image)) for image in images)
        self._note_answer(handle)
        return outputs

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """Generate images with one call each; image i has seed + i."""
        handle = _handle_for(self.generation, params.model)
        singles = [replace(params, n=1, seed=params.seed + i) for i in range(params.n)]
        images: list[EncodedImage] = []
        for result in await _gather(_call(partial(handle.generate_one.remote, one)) for one in singles):
            if isinstance(result, Refusal):
                return result
            images.append(result)
        self._note_answer(handle)
        return images

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """Start a generation with one call for all its images; the replica writes to the generation store."""
        handle = _handle_for(self.generation, params.model)
        call = asyncio.create_task(self._run(handle, generation_id, params))
        try:
            done, _ = await asyncio.wait([call], timeout=_REJECTED_WITHIN_S)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if done and isinstance(error := call.exception(), UnavailableError):
            raise error
        return self.tracker.start(generation_id, call)

    async def _run(self, handle: Handle, generation_id: str, params: GenerationParams) -> None:
        await _call(partial(handle.run_generation.remote, generation_id, params))
        self._note_answer(handle)

    async def close(self) -> None:
        """Wait for the generations of this process: calls in its queue would vanish with it."""
        await self.tracker.drain(within_s=2 * self.limits.generate_timeout_s)


class AggregatorPeers:
    """The other endpoint replicas, reached through the metrics aggregator."""

    def __init__(self, aggregator: Handle) -> None:
        self.aggregator, self.replica = _pickled(aggregator), secrets.token_hex(8)

    async def exchange(self, snapshot: MetricsSnapshot) -> MetricsSnapshot:
        """Report this replica's snapshot; returns the sum over all replicas. Raises UnavailableError."""
        call = partial(self.aggregator.exchange.remote, self.replica, snapshot)
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                total: MetricsSnapshot = await _call(call)
        except TimeoutError:
            raise UnavailableError(
                "the metrics of all replicas cannot be added up now", retry_after_s=RETRY_AFTER_S
            ) from None
        return total


def _pickled(handle: Handle) -> Handle:
    """A handle that uses plain pickle: both ends have the same classes, and it saves 2 ms per image."""
    return handle.options(request_serialization="pickle", response_serialization="pickle")


def _handle_for(handle: Handle, model: str) -> Handle:
    """A handle that prefers replicas which have a model loaded."""
    return handle if model == DEFAULT_MODEL else handle.options(multiplexed_model_id=model)


async def _call(remote: Callable[[], Any]) -> Any:
    """The result of a call, repeated if its replica died. Raises UnavailableError."""
    for pause_s in (0.0, *RETRY_PAUSES_S):
        await asyncio.sleep(pause_s)
        response = remote()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            raise FullError("the queue is full", retry_after_s=RETRY_AFTER_S) from None
        except (RayActorError, RequestCancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None  # this side cancelled the call
            logger.warning("a replica died during a call: %s", type(error).__name__)
        except DeploymentUnavailableError:
            break
    raise UnavailableError("no replica is available", retry_after_s=RETRY_AFTER_S)


async def _gather(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results in order. If a call fails, the others are cancelled."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
