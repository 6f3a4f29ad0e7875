"""The backend over handles whose calls run in this process, without a cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from tests.service.fake import DESCRIPTION, client_of
from uniemo_ray.service import handles
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import GenerationParams
from uniemo_ray.service.generations import INTERRUPTED, GenerationState, GenerationStore
from uniemo_ray.service.handles import HandleBackend
from uniemo_ray.service.settings import Limits

PARAMS = GenerationParams("default", {"awe": 1.0}, None, 1, 7, None, None, None, None, "condition", "png")


class Response:
    """The response of a handle's call."""

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


async def responds(_handle: Any) -> bool:
    return True


async def hangs(_handle: Any) -> bool:
    return False


async def full(*_arguments: Any) -> Any:
    raise BackPressureError(num_queued_requests=1, max_queued_requests=1)


def backend_of(
    generation_store: GenerationStore,
    ping: Callable[..., Awaitable[Any]] = at_once,
    timeout_s: float = 60,
    health: Callable[[Any], Awaitable[bool]] = responds,
    **methods: Any,
) -> HandleBackend:
    understanding = Deployment("Understanding", ping=at_once)
    generation = Deployment("Generation", ping=ping, **methods)
    limits = Limits(generate_timeout_s=timeout_s)
    return HandleBackend(
        understanding, generation, generation_store=generation_store, limits=limits, responds=health
    )


def test_an_updated_model_is_described_after_seconds(generation_store):
    models = [DESCRIPTION, replace(DESCRIPTION, fingerprint="new")]

    async def describe(_name: str) -> Any:
        return models[0]

    async def talk() -> None:
        backend = backend_of(generation_store, describe=describe)
        assert (await backend.describe("default")).fingerprint == "abc"
        models.pop(0)
        assert (await backend.describe("default")).fingerprint == "abc"
        cached = backend.descriptions["default"]
        cached.clock = lambda: cached.cached[0] + handles.MODEL_FRESH_S
        assert (await backend.describe("default")).fingerprint == "new"

    asyncio.run(talk())


def test_probes_share_one_ping(generation_store):
    async def talk() -> None:
        backend = backend_of(generation_store)
        assert await asyncio.gather(*(backend.is_ready() for _ in range(50))) == [True] * 50
        assert (backend.understanding.ping.calls, backend.generation.ping.calls) == (1, 1)

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("ping", "is_busy", "health", "expected"),
    [
        (full, False, responds, True),
        (never, True, responds, True),
        (never, False, responds, False),
        (full, False, hangs, False),
        (never, True, hangs, False),
    ],
)
def test_busy_models_are_ready_and_silent_or_hung_ones_are_not(
    ping, is_busy, health, expected, generation_store, monkeypatch
):
    async def generate_one(_params: GenerationParams) -> str:
        return "image"

    async def talk() -> bool:
        backend = backend_of(generation_store, ping, health=health, generate_one=generate_one)
        if is_busy:
            assert await backend.generate(PARAMS) == ["image"]
        return await backend.is_ready()

    monkeypatch.setattr(handles, "READY_TIMEOUT_S", 0.05)
    assert asyncio.run(talk()) is expected


def test_a_process_that_ends_lets_its_generations_finish(generation_store):
    may_finish = asyncio.Event()

    async def run(generation_id: str, _params: GenerationParams) -> None:
        await may_finish.wait()
        generation_store.write_state(generation_id, GenerationState("done", ()))

    async def talk() -> None:
        backend = backend_of(generation_store, run_generation=run)
        generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
        await backend.start(generation.id, PARAMS)
        closing = asyncio.create_task(backend.close())
        done, _ = await asyncio.wait([closing], timeout=0.05)
        assert not done
        may_finish.set()
        await closing
        assert generation_store.state(generation).status == "done"

    asyncio.run(talk())


async def break_down(*_arguments: Any) -> Any:
    await asyncio.sleep(2 * handles._REJECTED_WITHIN_S)
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("run", [never, break_down])
def test_a_generation_that_will_not_be_finished_says_so(run, generation_store):
    async def talk() -> None:
        backend = backend_of(generation_store, run_generation=run, timeout_s=0.5)
        generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
        work = await backend.start(generation.id, PARAMS)
        if run is never:
            await backend.close()
        await asyncio.wait([work])
        state = generation_store.state(generation)
        assert (state.status, state.problem) == ("failed", INTERRUPTED)

    asyncio.run(talk())


def test_a_full_queue_is_reported_at_once_and_nothing_is_stored(generation_store):
    async def talk() -> None:
        with pytest.raises(handles.FullError):
            await backend_of(generation_store, run_generation=full).start("x", PARAMS)

    asyncio.run(talk())
    assert generation_store.store.is_empty()


def test_a_generation_that_is_cancelled_while_it_waits_frees_its_place(generation_store):
    async def describe(_model: str) -> Any:
        return DESCRIPTION

    backend = backend_of(generation_store, run_generation=never, describe=describe, timeout_s=0.5)
    app = make_api(
        backend,
        generation_store=generation_store,
        limits=Limits(concurrent_generations=1, generate_timeout_s=0.1),
    )
    with client_of(app) as client:
        ids = [client.post("/v1/generations", json={"emotion": "awe"}).json()["id"]]
        assert client.post("/v1/generations", json={"emotion": "awe"}).status_code == 429
        assert client.delete(f"/v1/generations/{ids[0]}").json()["status"] == "cancelled"
        end = time.monotonic() + 20
        while (again := client.post("/v1/generations", json={"emotion": "awe"})).status_code != 202:
            assert time.monotonic() < end
    assert generation_store.store.list(ids[0]) == [f"{ids[0]}/cancel"]
    assert again.json()["status"] == "queued"


@pytest.mark.parametrize("heard", ["ping", "generation"])
def test_replicas_that_only_work_on_generations_are_ready(heard, generation_store, monkeypatch):
    pings: list[int] = []

    async def ping() -> None:
        pings.append(1)
        if heard != "ping" or len(pings) > 1:
            await never()

    async def talk() -> list[bool]:
        backend = backend_of(generation_store, ping, run_generation=at_once)
        if heard == "generation":
            generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
            await (await backend.start(generation.id, PARAMS))
        return [await backend.is_ready(), await backend.is_ready()]

    monkeypatch.setattr(handles, "READY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(handles, "READY_FRESH_S", 0.0)
    assert asyncio.run(talk()) == [True, True]
    assert len(pings) == 2
