"""The whole service without Ray, over HTTP and a tiny random model."""

import asyncio
import base64
import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from tests.service.fake import assert_problem, client_of, encode
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.service import port
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import GenerationParams, ImageInput, ImageOutput
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


def test_understanding_does_not_wait_for_images_and_leaves_their_bytes_alone(
    registry, model, generation_store
):
    params = GenerationParams("default", {"awe": 1.0}, None, 3, 7, 60, None, None, None, "condition", "png")
    picture = encode(Image.effect_noise((60, 60), 60).convert("RGB"))

    async def talk() -> tuple[list[bytes], list[bytes], int]:
        backend = LocalBackend(
            registry.understander(model),
            registry.image_generator(model),
            generation_store=generation_store,
            limits=LIMITS,
        )
        alone = await backend.generate(params)
        busy, answered = asyncio.create_task(backend.generate(params)), 0
        first = None
        while not busy.done():
            [output] = await backend.understand([ImageInput(picture, False, "default")])
            assert isinstance(output, ImageOutput)
            first = first or output.result
            assert output.result.emotions == first.emotions
            answered += not busy.done()
        assert isinstance(alone, list)
        return [image.data for image in alone], [image.data for image in busy.result()], answered

    alone, busy, answered = asyncio.run(talk())
    assert alone == busy
    assert answered > 10  # with one after the other it would be 1 to 3


@contextlib.contextmanager
def command(folder) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server as a process of its own, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
    options = ("--port", str(number), "--store", str(folder))
    started = subprocess.Popen(
        [sys.executable, "-m", "uniemo_ray.service.local", "tiny", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url, end = f"http://127.0.0.1:{number}", time.monotonic() + 120
    try:
        while True:
            assert started.poll() is None, started.stdout.read()
            assert time.monotonic() < end
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/healthz", timeout=5).status_code == 200:
                    break
            time.sleep(0.1)
        yield started, url
    finally:
        started.kill()
        started.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_the_server_at_once_and_keeps_what_is_finished(tmp_path):
    """Eight images, whose stream is open; a plain request waits as well. Ctrl-C after the first image."""
    seen: list[str] = []
    fetched: list[bytes] = []
    body = {"emotion": "awe", "n": 8, "steps": 60, "seed": 7}
    plain: list[httpx.Response] = []

    with command(tmp_path) as (server, url):
        path = httpx.post(f"{url}/v1/generations", json=body, timeout=60).headers["location"]
        waiting = threading.Thread(
            target=lambda: plain.append(httpx.post(f"{url}/v1/generate", json=body, timeout=60))
        )
        waiting.start()
        interrupted = 0.0
        with httpx.stream("GET", f"{url}{path}/events", timeout=120) as stream:
            for line in stream.iter_lines():
                name = line.partition("event: ")[2]
                seen += [name] if name else []
                if line.startswith("data: ") and seen[-1] == "image" and not interrupted:
                    interrupted = time.monotonic()
                    server.send_signal(signal.SIGINT)
                if line.startswith("data: ") and seen[-1] == "failed":
                    last = json.loads(line.removeprefix("data: "))
        finished = [image for image in last["images"] if "url" in image]
        fetched = [httpx.get(f"{url}{image['url']}", timeout=5).content for image in finished]
        server.wait(timeout=10)
        took_s = time.monotonic() - interrupted
        waiting.join(timeout=10)
        output = server.stdout.read()
    print(f"ended {took_s:.1f} s after Ctrl-C, {len(finished)} of 8 images finished")
    assert took_s < 3, output
    assert seen[-1] == "failed"
    assert 1 <= len(finished) < 8
    assert f"{len(finished)} of 8 images are finished and kept" in last["problem"]["detail"]
    assert all(data.startswith(b"\x89PNG") for data in fetched)
    assert server.returncode == 0
    assert "loading the model tiny" in output
    assert "Traceback" not in output
    assert_problem(plain[0], 503, "the server is stopping")
    with command(tmp_path) as (_, url):  # what was kept is there after a restart
        assert httpx.get(f"{url}{path}", timeout=60).json()["status"] == "failed"
        assert httpx.get(f"{url}{finished[0]['url']}", timeout=60).content == fetched[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_caller_that_leaves_stops_the_work_at_once(tmp_path):
    def in_progress(url: str) -> float:
        text = httpx.get(f"{url}/metrics", timeout=60).text
        [line] = [
            part
            for part in text.splitlines()
            if part.startswith('uniemo_images_in_progress{work="generate"}')
        ]
        return float(line.split()[-1])

    body = {"emotion": "awe", "n": 8, "steps": 100}
    with command(tmp_path) as (_, url):
        httpx.get(f"{url}/v1/model", timeout=60)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/generate", json=body, timeout=1.5)
        left = time.monotonic()
        while in_progress(url) > 0:
            assert time.monotonic() < left + 5, "the work goes on"
            time.sleep(0.05)
        print(f"no image in progress {time.monotonic() - left:.2f} s after the caller had left")


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        started = time.monotonic()
        assert main(["tiny", "--port", str(taken.getsockname()[1])]) == 2
        assert port.main(["127.0.0.1", str(taken.getsockname()[1])]) == 2  # `make serve` asks this
    assert time.monotonic() - started < 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["give another --port", "give another PORT=number"]
    assert all(line.startswith("error: cannot listen on 127.0.0.1") for line in lines)


def test_a_port_that_another_server_would_share_is_taken():
    with socket.socket() as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as HAProxy does
        shared.bind(("127.0.0.1", 0))
        shared.listen()
        with pytest.raises(ValueError, match="give another"):
            port.check_port("127.0.0.1", shared.getsockname()[1])
