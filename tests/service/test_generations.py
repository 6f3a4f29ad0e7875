"""`/v1/generations` over a fake backend: start, get, watch, cancel, expire."""

import json
import time

import pytest

from tests.service.fake import FULL_SEED, SLOW_SEED, assert_problem, client_of, grey, make_fake
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import Limits
from uniemo_ray.store.local import LocalStore

URL = "/v1/generations"


def read_events(text: str) -> list[tuple[str, dict]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event")]
    return [
        (block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks
    ]


def test_from_queued_to_the_image(client):
    created = client.post(URL, json={"emotion": "awe", "seed": 7, "format": "webp"})
    assert created.status_code == 202, created.text
    generation = created.json()
    path = f"{URL}/{generation['id']}"
    assert created.headers["location"] == path
    assert generation["status"] in ("queued", "running")
    events = read_events(client.get(f"{path}/events").text)
    assert [name for name, _ in events] == ["queued", "step", "preview", "step", "image", "done"]
    assert events[1][1] == {"image": 0, "step": 1, "steps": 2}
    assert events[2][1]["data"] == "cHJldmlldw=="
    done = events[-1][1]
    assert done["status"] == "done"
    finished = {"image": 0, "seed": 7, "media_type": "image/webp", "url": f"{path}/images/0", "sha256": "ab"}
    assert events[4][1] == finished
    assert done["images"][0]["url"] == f"{path}/images/0"
    image = client.get(done["images"][0]["url"])
    assert image.headers["content-type"] == "image/webp"
    assert image.content == grey(7, "webp")
    assert client.get(f"{path}/previews/0").content == b"preview"
    assert client.get(path).json()["status"] == "done"
    assert read_events(client.get(f"{path}/events").text)[-1][0] == "done"  # a stream opened again
    counted = 'uniemo_images_total{emotion="awe",work="generate"} 1.0'
    assert any(counted in client.get("/metrics").text or time.sleep(0.1) for _ in range(50))
    assert 'uniemo_batch_images_sum{work="generate"} 4.0' in client.get("/metrics").text
    assert client.delete(path).json()["status"] == "done"  # too late
    for gone in (path, f"{path}/events", f"{path}/images/0"):
        assert_problem(client.get(gone), 404, "no such generation")


def test_cancelling_frees_the_model(served):
    client, backend = served
    path = f"{URL}/{client.post(URL, json={'emotion': 'awe', 'seed': SLOW_SEED}).json()['id']}"
    assert_problem(client.get(f"{path}/images/0"), 404, "does not exist yet")
    assert client.delete(path).json()["status"] == "cancelled"
    assert_problem(client.get(path), 404, "no such generation")
    assert_problem(client.delete(path), 404, "no such generation")
    deadline = time.monotonic() + 20
    while not backend.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert backend.cancelled == [SLOW_SEED]


def test_a_full_queue_refuses_at_once_and_keeps_nothing(client, generation_store):
    for _ in range(20):  # more than one caller may have unfinished
        response = client.post(URL, json={"emotion": "awe", "seed": FULL_SEED})
        assert_problem(response, 503, "the queue is full")
    assert response.headers["retry-after"] == "2"
    assert generation_store.store.is_empty()


def test_unfinished_generations_are_limited(tmp_path):
    generation_store = GenerationStore(LocalStore(tmp_path), ttl_s=60)
    app, _ = make_fake(generation_store, limits=Limits(concurrent_generations=2))
    body = {"emotion": "awe", "seed": SLOW_SEED}
    with client_of(app) as client:
        paths = [f"{URL}/{client.post(URL, json=body).json()['id']}" for _ in range(2)]
        refused = client.post(URL, json=body)
        assert_problem(refused, 429, "more than 2 unfinished")
        assert "retry-after" in refused.headers
        client.delete(paths[0])
        deadline = time.monotonic() + 20
        while client.post(URL, json=body).status_code != 202:  # as soon as the model has stopped
            assert time.monotonic() < deadline
        for generation_id in {key.partition("/")[0] for key in generation_store.store.list()}:
            client.delete(f"{URL}/{generation_id}")


def test_unknown_expired_and_malformed_ids_are_not_found(client, generation_store):
    assert_problem(client.get(f"{URL}/{'a' * 22}"), 404, "no such generation")
    assert client.get(f"{URL}/..%2f..%2fetc").status_code in (404, 422)
    assert client.get(f"{URL}/short").json()["field"] == "id"
    generation = client.post(URL, json={"emotion": "awe"}).json()
    now = generation_store.clock()
    generation_store.clock = lambda: now + 61
    assert_problem(client.get(f"{URL}/{generation['id']}"), 404, "no such generation")


@pytest.mark.parametrize(
    "body", [{"emotion": "joy"}, {"emotion": "sadness"}, {"emotion": "awe", "width": 10}]
)
def test_an_impossible_request_is_refused_before_anything_is_kept(client, generation_store, body):
    assert client.post(URL, json=body).status_code == 422
    assert generation_store.store.is_empty()
