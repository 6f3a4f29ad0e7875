"""A store that is full, cannot be written or is nobody else's business."""

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.fake import DESCRIPTION, Brightness, assert_problem, client_of, grey, make_fake
from tests.service.test_generations import URL, read_events
from tests.store.conftest import tiny_disk
from uniemo_ray.inference.requests import Request, SamplingSettings
from uniemo_ray.service.api import readiness
from uniemo_ray.service.backend import EncodedImage, GenerationParams
from uniemo_ray.service.generation_tracker import GenerationTracker
from uniemo_ray.service.generations import NOT_STORED, GenerationStore
from uniemo_ray.service.kept_bytes import UNKNOWN, KeptBytes
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile, add_token
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageRequest, SamplingProgress
from uniemo_ray.store.errors import StoreFullError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.local import LocalStore

__all__ = ["tiny_disk"]

PROMPT = "{} and a word that nobody else should read"
PARAMS = GenerationParams("default", {"awe": 1.0}, PROMPT, 2, 7, None, None, None, None, "condition", "png")
FILLER_BYTES = 4096


def fill(disk: Path) -> Path:
    """Take all room of a disk; returns the folder to delete."""
    folder = disk / "filler"
    folder.mkdir()
    with (folder / "all").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(FILLER_BYTES))
    assert shutil.disk_usage(disk).free == 0
    return folder / "all"


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_full_store_is_not_ready_and_answers_507_until_there_is_room(tiny_disk):
    app, _ = make_fake(GenerationStore(LocalStore(tiny_disk / "store"), ttl_s=60))
    with client_of(app) as client:
        assert client.get("/readyz").status_code == 200
        filler = fill(tiny_disk)
        response = client.post(URL, json={"emotion": "awe"})
        assert_problem(response, 507, "the server's storage is full")
        assert str(tiny_disk) not in response.text
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert_problem(client.get("/readyz"), 503, "the store of generations is full")
        filler.unlink()
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.post(URL, json={"emotion": "awe"}).status_code == 202


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/sys/nowhere"])
def test_a_store_that_cannot_be_written_is_not_ready_and_answers_503(folder):
    app, _ = make_fake(GenerationStore(open_store(folder), ttl_s=60))
    with client_of(app) as client:
        response = client.get("/readyz")
        assert_problem(response, 503, "the store of generations cannot be written")
        refused = client.post(URL, json={"emotion": "awe"})
        assert_problem(refused, 503, "the server's storage cannot be used")
        assert "retry-after" in refused.headers
        assert folder not in response.text + refused.text


def test_a_model_that_only_understands_needs_no_store(monkeypatch):
    async def describe(_self: Brightness, _model: str):
        return replace(DESCRIPTION, paintable=())

    monkeypatch.setattr(Brightness, "describe", describe)
    app, _ = make_fake(GenerationStore(open_store("/proc/nowhere"), ttl_s=60))
    with client_of(app) as client:
        assert client.get("/readyz").status_code == 200


def requests_of(params: GenerationParams) -> list[ImageRequest]:
    settings = SamplingSettings("ddim", steps=9, guidance=1.0, width=8, height=8, micro_batch=1)
    return [
        ImageRequest("default", Request(params.seed + i, PROMPT, ()), settings, "png")
        for i in range(params.n)
    ]


class Filling(Brightness):
    """Its first image is finished; then the disk fills, and the second image is finished."""

    def __init__(self, generation_store: GenerationStore, disk: Path) -> None:
        super().__init__(generation_store)
        self.disk = disk
        self.filler: Path | None = None
        self.tracker = GenerationTracker(generation_store)

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        async def generate(request: ImageRequest) -> EncodedImage:
            assert request.on_step is not None
            request.on_step(SamplingProgress(1, 9, b"preview"))
            if request.request.seed == params.seed + 1:
                await asyncio.sleep(0.6)
                self.filler = fill(self.disk)
            request.on_step(SamplingProgress(9, 9, None))
            return EncodedImage(grey(1, "png"), {"prompt": PROMPT}, 1)

        work = execute_generation(
            generation_id,
            requests_of(params),
            generate=generate,
            generation_store=self.generation_store,
            timeout_s=60,
        )
        return self.tracker.start(generation_id, work)


def test_a_disk_that_fills_at_work_ends_the_generation_and_its_stream(tiny_disk):
    generation_store = GenerationStore(LocalStore(tiny_disk / "store"), ttl_s=600)
    app, _ = make_fake(generation_store, limits=Limits(generate_timeout_s=300))
    backend = Filling(generation_store, tiny_disk)
    object.__setattr__(app.state.service, "backend", backend)
    with client_of(app) as client:
        created = client.post(URL, json={"emotion": "awe", "seed": 7, "n": 2, "prompt": PROMPT})
        path = f"{URL}/{created.json()['id']}"
        name, last = read_events(client.get(f"{path}/events").text)[-1]
        assert (name, last["status"]) == ("failed", "failed")
        assert last["problem"]["detail"] == f"{NOT_STORED.detail}; 1 of 2 images are finished and kept"
        assert client.get(last["images"][0]["url"]).content == grey(1, "png")  # what was kept is there
        assert "url" not in last["images"][1]
        assert backend.filler is not None
        backend.filler.unlink()
        fresh = GenerationStore(LocalStore(tiny_disk / "store"), ttl_s=600)  # as another process sees it
        generation = fresh.find(created.json()["id"], owner="local")
        wait_for(lambda: fresh.state(generation).status == "failed")


def test_the_end_that_a_store_refuses_is_told_at_once_and_written_when_it_can_be(tmp_path):
    class Refusing(LocalStore):
        is_full = False

        def write_bytes(self, key: str, data: bytes) -> None:
            if Refusing.is_full:
                raise StoreFullError("disk full")
            super().write_bytes(key, data)

    generation_store = GenerationStore(Refusing(tmp_path), ttl_s=60)
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    Refusing.is_full = True
    generation_store.fail_unfinished(generation.id, NOT_STORED)
    generation_store.record_failures()
    assert generation_store.state(generation).problem == NOT_STORED
    other = GenerationStore(LocalStore(tmp_path), ttl_s=60)
    assert other.state(generation).status == "queued"
    Refusing.is_full = False
    generation_store.record_failures()
    assert other.state(generation).problem == NOT_STORED
    assert generation_store.unrecorded == {}


def test_what_is_kept_has_a_limit_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "KEPT_FRESH_S", 0.0)
    generation_store = GenerationStore(LocalStore(tmp_path), ttl_s=60)
    app, _ = make_fake(generation_store, limits=Limits(kept_bytes=50_000, generate_timeout_s=0.4))
    with client_of(app) as client:
        path = client.post(URL, json={"emotion": "awe"}).headers["location"]
        read_events(client.get(f"{path}/events").text)  # until it is finished
        generation_store.write_image(path.rpartition("/")[2], "image-9", bytes(60_000))
        assert_problem(client.post(URL, json={"emotion": "awe"}), 507, "keeps as many generations as it may")
        assert client.get("/readyz").status_code == 200  # it is not broken
        client.delete(path)
        assert client.post(URL, json={"emotion": "awe"}).status_code == 202


def test_what_is_kept_for_a_token_has_a_limit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "KEPT_FRESH_S", 0.0)
    generation_store = GenerationStore(LocalStore(tmp_path / "store"), ttl_s=60)
    names = {name: add_token(tmp_path / "tokens.json", name) for name in ("ann", "bob")}
    ann, bob = ({"authorization": f"Bearer {token}"} for token in names.values())
    limits = Limits(kept_bytes_per_token=50_000, generate_timeout_s=0.4)
    app, _ = make_fake(generation_store, tokens=TokenFile(tmp_path / "tokens.json"), limits=limits)
    with client_of(app) as client:
        path = client.post(URL, json={"emotion": "awe"}, headers=ann).headers["location"]
        read_events(client.get(f"{path}/events", headers=ann).text)
        generation_store.write_image(path.rpartition("/")[2], "image-9", bytes(60_000))
        assert_problem(client.post(URL, json={"emotion": "awe"}, headers=ann), 507, "your generations take")
        assert client.post(URL, json={"emotion": "awe"}, headers=bob).status_code == 202
        client.delete(path, headers=ann)
        assert client.post(URL, json={"emotion": "awe"}, headers=ann).status_code == 202


def test_without_tokens_all_callers_share_the_whole_room(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "KEPT_FRESH_S", 0.0)
    generation_store = GenerationStore(LocalStore(tmp_path), ttl_s=60)
    app, _ = make_fake(generation_store, limits=Limits(kept_bytes_per_token=1, generate_timeout_s=0.4))
    with client_of(app) as client:
        for _ in range(2):
            assert client.post(URL, json={"emotion": "awe"}).status_code == 202


def test_bytes_are_counted_by_owner_and_what_vanishes_meanwhile_counts_nothing(tmp_path, monkeypatch):
    store = LocalStore(tmp_path / "store")
    kept = KeptBytes(store)
    assert not kept.by_owner()  # there is no folder yet
    generation_store = GenerationStore(store, ttl_s=60)
    ids = [generation_store.create(PARAMS, owner=owner, timeout_s=50).id for owner in ("ann", "bob", "ann")]
    before = kept.by_owner()
    for generation_id, size in zip(ids, (1000, 200, 30), strict=True):
        generation_store.write_image(generation_id, "image-0", bytes(size))
    store.write_bytes("notes.txt", bytes(7))
    (tmp_path / "store" / "damaged").mkdir()
    (tmp_path / "store" / "damaged" / "request.json").write_text("{")
    after = kept.by_owner()
    assert {name: after[name] - before[name] for name in ("ann", "bob")} == {"ann": 1030, "bob": 200}
    assert after[UNKNOWN] >= 8

    listed = os.listdir(tmp_path / "store")
    monkeypatch.setattr(os, "listdir", lambda path: [*listed, "gone"])
    shutil.rmtree(tmp_path / "store" / ids[1])
    found = kept.by_owner()
    assert (found["ann"], found["bob"]) == (after["ann"], 0)


def test_nobody_else_can_read_a_generation(tmp_path):
    generation_store = GenerationStore(LocalStore(tmp_path / "new" / "store"), ttl_s=60)
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    generation_store.write_image(generation.id, "image-0", b"x")
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (tmp_path / "new", *{path.parent for path in files}):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_deleting_removes_the_prompt_and_everything_else_at_once(client, generation_store, tmp_path):
    created = client.post(URL, json={"emotion": "awe", "prompt": PROMPT})
    path = f"{URL}/{created.json()['id']}"
    assert read_events(client.get(f"{path}/events").text)[-1][0] == "done"
    assert client.delete(path).status_code == 200
    left = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"nobody else" not in left
    assert generation_store.store.list() == [f"{created.json()['id']}/cancel"]
    assert generation_store.delete_expired() == 0  # whoever may still work on it sees that it is cancelled
    now = generation_store.clock()
    generation_store.clock = lambda: now + 61
    assert generation_store.delete_expired() == 1
    assert generation_store.store.is_empty()


def test_a_full_disk_keeps_nobody_from_deleting(tiny_disk):
    generation_store = GenerationStore(LocalStore(tiny_disk / "store"), ttl_s=60)
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=50)
    generation_store.write_image(generation.id, "image-0", bytes(20_000))
    fill(tiny_disk)
    generation_store.cancel(generation.id)
    assert generation_store.find(generation.id, owner="ann") is None
    assert generation_store.store.list() == [f"{generation.id}/cancel"]
