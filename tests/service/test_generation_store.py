"""The generation store: what is written is read, by its owner, until it expires."""

from dataclasses import replace

import pytest

from uniemo_ray.service.backend import GenerationParams, Refusal
from uniemo_ray.service.generations import INTERRUPTED, GenerationState, GenerationStore, ImageState
from uniemo_ray.store.local import LocalStore
from uniemo_ray.store.s3 import S3Store

PARAMS = GenerationParams("default", {"awe": 1.0}, None, 2, 7, None, None, None, None, "condition", "png")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def generation_store(tmp_path, clock) -> GenerationStore:
    return GenerationStore(LocalStore(tmp_path), ttl_s=100, clock=clock)


def test_a_generation_is_its_owners(generation_store):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    assert generation_store.find(generation.id, owner="ann") == generation
    assert generation_store.find(generation.id, owner="bob") is None
    assert generation_store.find("x" * 22, owner="ann") is None


def test_states_survive_the_store(generation_store):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    assert generation_store.state(generation) == GenerationState("queued", (ImageState(), ImageState()))
    for state in (
        GenerationState("running", (ImageState(3, 9, 1), ImageState())),
        GenerationState(
            "failed", (ImageState(3, 9, 1), ImageState()), Refusal("no", "prompt", is_server_error=True)
        ),
        GenerationState("done", (ImageState(9, 9, 2, "ab", {"seed": 7}),)),
    ):
        generation_store.write_state(generation.id, state)
        assert generation_store.state(generation) == state


def test_a_cancelled_generation_is_final_before_its_replica_reports_it(generation_store):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    generation_store.write_state(generation.id, GenerationState("running", (ImageState(1, 9), ImageState())))
    generation_store.cancel(generation.id)
    assert generation_store.state(generation).status == "cancelled"
    generation_store.write_state(generation.id, GenerationState("done", ()))
    assert generation_store.state(generation).status == "done"


def test_a_generation_that_nobody_finishes_fails_at_its_deadline(generation_store, clock):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    clock.now += 51
    state = generation_store.state(generation)
    assert (state.status, state.problem) == ("failed", INTERRUPTED)


def test_a_last_report_stands_though_the_generation_is_called_lost(generation_store):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    generation_store.fail_unfinished(generation.id)
    assert generation_store.state(generation) == GenerationState("failed", (), INTERRUPTED)
    generation_store.write_state(generation.id, GenerationState("done", ()))
    generation_store.fail_unfinished(generation.id)
    assert generation_store.state(generation).status == "done"
    generation_store.delete(generation.id)
    assert generation_store.store.is_empty()


def test_expired_generations_are_gone_and_swept(generation_store, clock, tmp_path):
    old = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    generation_store.write_image(old.id, "image-0", b"x")
    clock.now += 60
    new = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    clock.now += 50
    assert generation_store.find(old.id, owner="ann") is None
    assert generation_store.delete_expired() == 1
    assert generation_store.store.list() == [f"{new.id}/request.json"]
    assert [path.name for path in tmp_path.iterdir()] == [new.id]
    generation_store.write_image(old.id, "image-1", b"x")  # a last report after the sweep
    assert generation_store.delete_expired() == 1
    assert generation_store.find(new.id, owner="ann") == new


@pytest.mark.parametrize("content", [b"{", b"{}", b"3"])
def test_a_generation_that_cannot_be_read_does_not_keep_others(generation_store, clock, content):
    old, damaged = (generation_store.create(PARAMS, owner="ann", timeout_s=50) for _ in range(2))
    generation_store.store.write_bytes(f"{damaged.id}/request.json", content)
    clock.now += 110
    new = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    assert generation_store.delete_expired() == 2
    assert generation_store.store.list() == [f"{new.id}/request.json"]
    assert old.id != new.id


def test_a_sweep_leaves_alone_what_it_did_not_write(generation_store, tmp_path):
    foreign = tmp_path / "model" / "weights.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"x")
    assert generation_store.delete_expired() == 0
    assert foreign.exists()


def test_links_exist_on_s3_alone(generation_store, clock, monkeypatch):
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    assert generation_store.presigned_url(generation, "image-0") is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = S3Store("bucket", "prefix", endpoint="http://127.0.0.1:9", region="us-east-1", addressing="path")
    link = GenerationStore(store, ttl_s=100, clock=clock).presigned_url(
        generation, "image-0"
    )  # signed here: nothing is asked
    assert link is not None
    assert link.startswith(f"http://127.0.0.1:9/bucket/prefix/{generation.id}/image-0?")
    assert "secret" not in link
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    assert "X-Amz-Expires=100&" in link
    lasting = GenerationStore(store, ttl_s=1e7, clock=clock)
    link = lasting.presigned_url(replace(generation, expires_at=clock.now + 1e7), "image-0")
    assert "X-Amz-Expires=604800&" in link
