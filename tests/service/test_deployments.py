"""The service on a real Ray: equal bytes under load, killed replicas, cancelling, rolling updates."""

import base64
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import pytest
import ray
from ray import serve

from tests.service.fake import picture
from uniemo_ray import UniEmo
from uniemo_ray.service.app import BuildArgs, build_app
from uniemo_ray.service.deployments import _http_host
from uniemo_ray.service.pool import GenerationPool, Pool
from uniemo_ray.service.settings import Limits

pytestmark = pytest.mark.ray

LIMITS = {"requests_per_minute": 1_000_000, "steps": 2000}
AWE = {"emotion": "awe", "seed": 5}


def arguments(model: str, store: str, **changes: object) -> BuildArgs:
    values = {
        "model": model,
        "models": {"other": model},
        "store": store,
        "understanding": Pool(num_cpus=0.2, batch_size=4),
        "generation": GenerationPool(num_cpus=0.2, batch_size=4),
        "limits": Limits(**LIMITS),
    }
    return BuildArgs(**values | changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("generations"))


@pytest.fixture(scope="module")
def url(ray_session, model_folder, store) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 120})
    serve.run(build_app(arguments(str(model_folder), store)))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=32)) as client:
        yield client


def replica_of(name: str) -> psutil.Process:
    ours = psutil.Process().children(recursive=True)  # others may serve on this machine too
    marks = [p for p in ours if f"ServeReplica:default:{name}" in " ".join(_words(p))]
    return max(marks, key=lambda process: process.create_time())


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def load(ask: Callable[[], int]) -> Iterator[Counter[int]]:
    """Run four callers that repeat a request; counts statuses, with 0 for no response."""
    counts: Counter[int] = Counter()
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            try:
                counts[ask()] += 1
            except httpx.HTTPError:
                counts[0] += 1

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(call)
        try:
            yield counts
        finally:
            is_over.set()


def test_bytes_are_the_models_own_under_load(client, model_folder):
    buffer = io.BytesIO()
    UniEmo.from_pretrained(model_folder).generate("awe", seed=5)[0].save(buffer, "PNG")

    def ask(seed: int) -> bytes:
        body = {"emotion": "awe", "seed": seed, "n": 2}
        return base64.b64decode(client.post("/v1/generate", json=body).json()["images"][1]["data"])

    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(ask, [4, 9, 4, 8, 4, 7, 4, 6]))
    assert [image == buffer.getvalue() for image in images] == [True, False] * 4
    assert "uniemo_batch_images_bucket" in client.get("/metrics").text


def test_batches_form_across_requests(client):
    def count(kind: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(f"uniemo_batch_images_{kind}"))

    images, batches = count("sum"), count("count")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: client.post("/v1/generate", json=AWE | {"seed": seed, "n": 2}), range(8)))
        list(pool.map(lambda seed: client.post("/v1/understand", content=picture(seed)), range(24)))
    assert count("sum") - images > count("count") - batches == 16 + 24


def test_a_model_by_another_name(client):
    plain = client.post("/v1/generate", json=AWE).json()["images"][0]["data"]
    other = client.post("/v1/generate", json=AWE | {"model": "other"})
    assert other.status_code == 200, other.text
    assert other.json()["images"][0]["data"] == plain  # the same folder
    assert client.post("/v1/understand?model=other", content=picture(1)).status_code == 200
    assert client.get("/v1/model?model=other").json()["models"] == ["default", "other"]
    assert client.post("/v1/generate", json=AWE | {"model": "third"}).json()["field"] == "model"


def test_understanding_is_the_models_own(client, model_folder):
    seen = client.post("/v1/understand?attention=true", content=picture(3)).json()["results"][0]
    direct = UniEmo.from_pretrained(model_folder).understand([picture(3)], micro_batch=1)[0]
    assert seen["emotions"] == pytest.approx(direct.emotions, abs=1e-12)
    assert seen["attention"]["box"] == [10, 0, 50, 40]


def test_page_health_and_guard(client):
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/readyz").json() == {"status": "ready"}
    assert _http_host() == "127.0.0.1"
    assert client.get("/readyz", headers={"host": "uniemo.example"}).status_code == 403
    assert client.get("/openapi.json").json()["paths"]


def endpoint_log() -> str:
    """What the replicas of the endpoint have written to their logs."""
    folder = Path(ray._private.worker.global_worker.node.get_logs_dir_path(), "serve")
    return "".join(path.read_text() for path in sorted(folder.glob("replica_default_Endpoint_*.log")))


def test_each_request_is_one_json_line_in_the_log_of_the_endpoint(client):
    asked = [
        ("GET", "/v1/model", None, "/v1/model", 200),
        ("HEAD", "/healthz", None, "/healthz", 200),
        ("POST", "/v1/generate", AWE | {"prompt": "{} hiddenplace"}, "/v1/generate", 200),
        ("POST", "/v1/generate", {"emotion": "hiddenplace"}, "/v1/generate", 422),
        ("GET", f"/v1/generations/{'a' * 22}", None, "/v1/generations/{id}", 404),
        ("GET", "/hiddenplace", None, "other", 404),
    ]
    began = time.time()
    for number, (method, path, body, _, status) in enumerate(asked):
        response = client.request(method, path, json=body, headers={"x-request-id": f"log-{number}"})
        assert response.status_code == status
        assert response.headers["x-request-id"] == f"log-{number}"
    until = time.monotonic() + 2  # written at once
    while endpoint_log().count('"log-') < len(asked):
        assert time.monotonic() < until, endpoint_log()[-4000:]
        time.sleep(0.05)
    lines = [json.loads(line) for line in endpoint_log().splitlines()]
    ours = [line for line in lines if str(line.get("request_id")).startswith("log-")]
    for number, (line, (method, _, _, route, status)) in enumerate(zip(ours, asked, strict=True)):
        wanted = {"level": "INFO", "request_id": f"log-{number}", "token": "local", "method": method}
        assert line.items() >= (wanted | {"route": route, "status": status}).items()
        assert 0 <= line["ms"] < 120_000
        assert abs(datetime.fromisoformat(line["time"]).timestamp() - began) < 120
    assert "hiddenplace" not in endpoint_log()


def test_a_small_image_does_not_wait_for_a_large_one_that_came_before_it(client):
    """While the first image is made, two more arrive, the larger one first."""
    ended: list[str] = []

    def ask(name: str, delay_s: float, steps: int) -> None:
        time.sleep(delay_s)
        assert client.post("/v1/generate", json=AWE | {"steps": steps}).status_code == 200
        ended.append(name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, ["opener", "large", "small"], [0, 0.3, 0.6], [300, 400, 2]))
    assert ended == ["opener", "small", "large"]


def test_a_generation_is_watched_as_it_happens(client):
    path = client.post("/v1/generations", json=AWE | {"steps": 400}).headers["location"]
    with client.stream("GET", f"{path}/events") as stream:
        text = "".join(stream.iter_text())
    assert text.startswith("event: queued")
    assert text.count("event: preview") >= 1
    done = json.loads(text.rpartition("data: ")[2])
    assert done["status"] == "done"
    plain = client.post("/v1/generate", json=AWE | {"steps": 400}, headers={"accept": "image/png"})
    assert client.get(done["images"][0]["url"]).content == plain.content


def test_cancelling_frees_the_replica(client):
    path = client.post("/v1/generations", json=AWE | {"steps": 2000, "n": 8}).headers["location"]
    while client.get(path).json()["images"][0]["step"] < 2:
        time.sleep(0.1)
    assert client.delete(path).json()["status"] == "cancelled"
    began = time.monotonic()
    assert client.post("/v1/generate", json=AWE).status_code == 200
    assert time.monotonic() - began < 20  # the rest of 16,000 steps would take minutes


@pytest.mark.integration
@pytest.mark.parametrize("name", ["Generation", "Understanding"])
def test_a_killed_replica_costs_no_request(client, name):
    def ask() -> int:
        if name == "Generation":
            return client.post("/v1/generate", json=AWE).status_code
        # the endpoint understands only with the default model itself
        return client.post("/v1/understand?model=other", content=picture(1)).status_code

    with load(ask) as counts:
        while counts[200] < 4:
            time.sleep(0.1)
        replica_of(name).kill()
        killed_at, before = time.monotonic(), counts[200]
        while counts[200] < before + 20 and time.monotonic() < killed_at + 90:
            time.sleep(0.1)
        back_after_s = time.monotonic() - killed_at
    assert set(counts) <= {200, 503}, counts
    assert back_after_s < 90, counts


@pytest.mark.integration
@pytest.mark.timeout(900)  # Serve waits longer and longer between its tries with the bad one
def test_a_bad_model_replaces_nothing_and_a_good_one_costs_no_request(client, model_folder, store, tmp_path):
    def ask() -> int:
        return client.post("/v1/understand", content=picture(1)).status_code

    with load(ask) as counts:
        with pytest.raises(RuntimeError):
            serve.run(build_app(arguments(str(tmp_path / "gone"), store, limits=Limits(**LIMITS | {"n": 2}))))
        assert client.get("/v1/model").json()["limits"]["n"] == Limits().n  # the endpoint is the old one too
        assert client.post("/v1/generate", json=AWE).status_code == 200
        serve.run(build_app(arguments(str(model_folder), store, limits=Limits(**LIMITS | {"n": 3}))))
        assert client.get("/v1/model").json()["limits"]["n"] == 3
    assert set(counts) == {200}, counts


@pytest.mark.integration
def test_metrics_of_any_endpoint_are_the_sum_over_both(url, model_folder, store):
    serve.run(build_app(arguments(str(model_folder), store, endpoint_replicas=2)))
    for _ in range(40):
        assert httpx.get(f"{url}/v1/model", timeout=60).status_code == 200

    def counted() -> float:
        wanted = 'uniemo_requests_total{method="GET",route="/v1/model",status="200"}'
        lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted))

    until = time.monotonic() + 120
    while [counted() for _ in range(8)] != [40.0] * 8:  # one that answers for itself alone shows fewer
        assert time.monotonic() < until
        time.sleep(0.5)
