"""The job board: what is written is read, by its owner, until it expires."""

from dataclasses import replace

import pytest

from uniemo_ray.service.backend import Order, Refusal
from uniemo_ray.service.generations import LOST, ImageState, JobBoard, JobState
from uniemo_ray.store.local import LocalStore
from uniemo_ray.store.s3 import S3Store

ORDER = Order("default", {"awe": 1.0}, None, 2, 7, None, None, None, None, "condition", "png")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path, clock) -> JobBoard:
    return JobBoard(LocalStore(tmp_path), ttl_s=100, clock=clock)


def test_a_job_is_its_owners(board):
    job = board.create(ORDER, owner="ann", patience_s=50)
    assert board.find(job.id, owner="ann") == job
    assert board.find(job.id, owner="bob") is None
    assert board.find("x" * 22, owner="ann") is None


def test_states_survive_the_store(board):
    job = board.create(ORDER, owner="ann", patience_s=50)
    assert board.state(job) == JobState("queued", (ImageState(), ImageState()))
    for state in (
        JobState("running", (ImageState(3, 9, 1), ImageState())),
        JobState("failed", (ImageState(3, 9, 1), ImageState()), Refusal("no", "prompt", is_ours=True)),
        JobState("done", (ImageState(9, 9, 2, "ab", {"seed": 7}),)),
    ):
        board.write(job.id, state)
        assert board.state(job) == state


def test_a_cancelled_job_says_so_before_its_painter_does(board):
    job = board.create(ORDER, owner="ann", patience_s=50)
    board.write(job.id, JobState("running", (ImageState(1, 9), ImageState())))
    board.cancel(job.id)
    assert board.state(job) == JobState("cancelled", (ImageState(1, 9), ImageState()))
    board.write(job.id, JobState("done", ()))
    assert board.state(job).status == "done"


def test_a_job_that_nobody_finishes_fails_at_its_deadline(board, clock):
    job = board.create(ORDER, owner="ann", patience_s=50)
    clock.now += 51
    state = board.state(job)
    assert (state.status, state.problem) == ("failed", LOST)


def test_a_last_report_stands_though_the_job_is_called_lost(board):
    job = board.create(ORDER, owner="ann", patience_s=50)
    board.lose(job.id)
    assert board.state(job) == JobState("failed", (), LOST)
    board.write(job.id, JobState("done", ()))
    board.lose(job.id)
    assert board.state(job).status == "done"
    board.forget(job.id)
    assert board.store.is_empty()


def test_expired_jobs_are_gone_and_swept(board, clock, tmp_path):
    old = board.create(ORDER, owner="ann", patience_s=50)
    board.write_picture(old.id, "image-0", b"x")
    clock.now += 60
    new = board.create(ORDER, owner="ann", patience_s=50)
    clock.now += 50
    assert board.find(old.id, owner="ann") is None
    assert board.sweep() == 1
    assert board.store.list() == [f"{new.id}/job.json"]
    assert [path.name for path in tmp_path.iterdir()] == [new.id]
    board.write_picture(old.id, "image-1", b"x")  # a last report after the sweep
    assert board.sweep() == 1
    assert board.find(new.id, owner="ann") == new


@pytest.mark.parametrize("content", [b"{", b"{}", b"3"])
def test_a_job_that_cannot_be_read_does_not_keep_others(board, clock, content):
    old, damaged = (board.create(ORDER, owner="ann", patience_s=50) for _ in range(2))
    board.store.write_bytes(f"{damaged.id}/job.json", content)
    clock.now += 110
    new = board.create(ORDER, owner="ann", patience_s=50)
    assert board.sweep() == 2
    assert board.store.list() == [f"{new.id}/job.json"]
    assert old.id != new.id


def test_a_sweep_leaves_alone_what_it_did_not_write(board, tmp_path):
    foreign = tmp_path / "model" / "weights.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"x")
    assert board.sweep() == 0
    assert foreign.exists()


def test_links_exist_on_s3_alone(board, clock, monkeypatch):
    job = board.create(ORDER, owner="ann", patience_s=50)
    assert board.link(job, "image-0") is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = S3Store("bucket", "prefix", endpoint="http://127.0.0.1:9", region="us-east-1", addressing="path")
    link = JobBoard(store, ttl_s=100, clock=clock).link(job, "image-0")  # signed here: nothing is asked
    assert link is not None
    assert link.startswith(f"http://127.0.0.1:9/bucket/prefix/{job.id}/image-0?")
    assert "secret" not in link
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    assert "X-Amz-Expires=100&" in link
    lasting = JobBoard(store, ttl_s=1e7, clock=clock)
    link = lasting.link(replace(job, expires_at=clock.now + 1e7), "image-0")
    assert "X-Amz-Expires=604800&" in link
