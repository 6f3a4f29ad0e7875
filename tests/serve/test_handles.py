"""The backend over handles that answer here, without a cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve import handles
from serve.backend import Order
from serve.handles import HandleBackend
from serve.settings import Limits
from tests.serve.fake import DESCRIPTION

ORDER = Order("default", {"awe": 1.0}, None, 1, 7, None, None, None, None, "condition", "png")


class Response:
    """What a call of a handle gives."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self.work = work
        self.is_cancelled = False

    def __await__(self) -> Any:
        return self.work.__await__()

    def cancel(self) -> None:
        self.is_cancelled = True


class Method:
    """One method of a deployment."""

    def __init__(self, work: Callable[..., Awaitable[Any]]) -> None:
        self.work, self.calls = work, 0

    def remote(self, *arguments: Any) -> Response:
        self.calls += 1
        return Response(self.work(*arguments))


class Deployment:
    """Stands in for a handle: its methods are plain coroutine functions."""

    def __init__(self, name: str, **methods: Callable[..., Awaitable[Any]]) -> None:
        self.deployment_name = name
        for method, work in methods.items():
            setattr(self, method, Method(work))

    def options(self, **_options: Any) -> "Deployment":
        return self


async def at_once(*_arguments: Any) -> Any:
    return None


async def never(*_arguments: Any) -> Any:
    await asyncio.Event().wait()


async def full(*_arguments: Any) -> Any:
    raise BackPressureError(num_queued_requests=1, max_queued_requests=1)


def backend_of(ping: Callable[..., Awaitable[Any]] = at_once, **methods: Any) -> HandleBackend:
    understanding = Deployment("Understanding", ping=at_once)
    return HandleBackend(understanding, Deployment("Generation", ping=ping, **methods), limits=Limits())


def test_an_updated_model_is_described_after_seconds():
    models = [DESCRIPTION, replace(DESCRIPTION, fingerprint="new")]

    async def describe(_name: str) -> Any:
        return models[0]

    async def talk() -> None:
        backend = backend_of(describe=describe)
        assert (await backend.describe("default")).fingerprint == "abc"
        models.pop(0)
        assert (await backend.describe("default")).fingerprint == "abc"
        recent = backend.descriptions["default"]
        recent.clock = lambda: recent.found[0] + handles.MODEL_FRESH_S
        assert (await backend.describe("default")).fingerprint == "new"

    asyncio.run(talk())


def test_probes_share_one_ping():
    async def talk() -> None:
        backend = backend_of()
        assert await asyncio.gather(*(backend.is_ready() for _ in range(50))) == [True] * 50
        assert (backend.understanding.ping.calls, backend.generation.ping.calls) == (1, 1)

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("ping", "is_busy", "expected"), [(full, False, True), (never, True, True), (never, False, False)]
)
def test_busy_models_are_ready_and_silent_ones_are_not(ping, is_busy, expected, monkeypatch):
    async def paint(_order: Order) -> str:
        return "image"

    async def talk() -> bool:
        backend = backend_of(ping, paint=paint)
        if is_busy:
            assert await backend.generate(ORDER) == ["image"]
        return await backend.is_ready()

    monkeypatch.setattr(handles, "READY_TIMEOUT_S", 0.05)
    assert asyncio.run(talk()) is expected
