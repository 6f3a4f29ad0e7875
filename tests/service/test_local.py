"""The whole service without Ray, over HTTP and a tiny random model."""

import asyncio
import base64
import io
import json
import time
from dataclasses import replace

import pytest
from PIL import Image

from tests.service.fake import assert_problem, client_of, encode
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import GenerationParams, ImageInput
from uniemo_ray.service.local import LocalBackend, main
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry

LIMITS = Limits(requests_per_minute=100_000)


@pytest.fixture(scope="module")
def registry(model_folder) -> ModelRegistry:
    return ModelRegistry(models={"default": str(model_folder)})


@pytest.fixture(scope="module")
def model(registry):
    return registry.load("default")


@pytest.fixture
def client(registry, model, generation_store):
    backend = LocalBackend(
        registry.understander(model),
        registry.image_generator(model),
        generation_store=generation_store,
        limits=LIMITS,
    )
    with client_of(make_api(backend, generation_store=generation_store, limits=LIMITS)) as client:
        yield client


def test_the_same_request_gives_the_same_bytes_as_the_model_itself(client, model):
    body = {"emotion": {"awe": 1, "fear": 3}, "seed": 5, "prompt": "{} room"}
    response = client.post("/v1/generate", json=body, headers={"accept": "image/png"})
    assert response.status_code == 200, response.text
    buffer = io.BytesIO()
    model.generate({"awe": 1, "fear": 3}, "{} room", seed=5)[0].save(buffer, "PNG")
    assert response.content == buffer.getvalue()
    answer = client.post("/v1/generate", json=body | {"n": 2, "seed": 4}).json()
    assert base64.b64decode(answer["images"][1]["data"]) == response.content
    assert answer["images"][1]["provenance"] == read_provenance(response.content)


def test_what_was_painted_can_be_understood(client, model):
    picture = client.post("/v1/generate", json={"emotion": "awe"}, headers={"accept": "image/jpeg"}).content
    answer = client.post("/v1/understand?attention=true", content=picture).json()
    seen = answer["results"][0]
    assert sum(seen["emotions"].values()) == pytest.approx(1)
    assert seen["attention"]["box"] == [0, 0, 32, 32]
    assert answer["model"] == client.get("/v1/model").json()["fingerprint"] == model.parts.fingerprint
    direct = model.understand([picture], micro_batch=1)[0]
    assert seen["emotions"] == direct.emotions


def test_a_generation_gives_the_bytes_of_the_plain_request(client):
    body = {"emotion": "fear", "seed": 3, "n": 2, "format": "webp", "steps": 12}
    plain = client.post("/v1/generate", json=body).json()
    path = client.post("/v1/generations", json=body).headers["location"]
    events = client.get(f"{path}/events").text
    done = json.loads(events.rpartition("data: ")[2])
    assert done["status"] == "done"
    for image, expected in zip(done["images"], plain["images"], strict=True):
        assert client.get(image["url"]).content == base64.b64decode(expected["data"])
        assert image["sha256"] == expected["sha256"]
    assert "event: step" in events


def test_requests_of_the_model_that_fail(client):
    long = {"emotion": "awe", "prompt": "very " * 50 + "{} room"}
    assert client.post("/v1/generate", json=long).json()["field"] == "prompt"
    assert_problem(client.post("/v1/generate", json={"emotion": "sadness"}), 422, "sadness", "emotion")
    cut = encode(Image.effect_noise((90, 90), 90).convert("RGB"))[:-2000]
    assert_problem(client.post("/v1/understand", content=cut), 422, "ends before")


def test_a_caller_that_leaves_stops_the_model(registry, model, generation_store):
    backend = LocalBackend(
        registry.understander(model),
        registry.image_generator(model),
        generation_store=generation_store,
        limits=LIMITS,
    )
    params = GenerationParams("default", {"awe": 1.0}, None, 8, 7, 1000, None, None, None, "condition", "png")

    async def leave() -> None:
        task = asyncio.create_task(backend.generate(params))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):  # 8000 steps take minutes
            assert isinstance(await backend.generate(replace(params, n=1, steps=1)), list)

    asyncio.run(leave())


def test_a_model_is_used_by_one_at_a_time_also_when_a_caller_leaves(generation_store):
    first, second = (ImageInput(word, False, "default") for word in (b"first", b"second"))
    starts: list[float] = []
    ends: list[float] = []

    class Slow:
        def understand(self, looks):
            starts.append(time.monotonic())
            time.sleep(0.3)
            ends.append(time.monotonic())
            return looks

    async def leave() -> None:
        backend = LocalBackend(Slow(), None, generation_store=generation_store, limits=LIMITS)
        task = asyncio.create_task(backend.understand([first]))
        await asyncio.sleep(0.1)
        task.cancel()
        assert await backend.understand([second]) == [second]
        assert task.cancelled()

    asyncio.run(leave())
    assert starts[1] >= ends[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone"], "gone"),
        (["gone", "--host", "0.0.0.0"], "refusing to bind to 0.0.0.0 without tokens"),
        (["gone", "--host", "0.0.0.0", "--tokens", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
