"""One driver at a time, whoever dies."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.skewed_clock import skewed_clock
from uniemo_ray.store.errors import RunLockedError, StoreError
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.lease import Holder, Lease

HOLDER = """
import sys
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.lease import Lease
with Lease(open_store(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
RACER = """
import sys, time
from uniemo_ray.store.errors import RunLockedError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.lease import Lease
lease = Lease(open_store(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    lease.acquire()
    print("held", flush=True)
except RunLockedError:
    print("refused", flush=True)
sys.stdin.readline()
"""


@contextmanager
def child(code: str, uri: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_living_driver_is_left_alone_and_a_dead_one_is_superseded(store: Store, uri: str) -> None:
    with child(HOLDER, uri) as holder:
        assert hear(holder) == "held"
        with pytest.raises(RunLockedError, match=rf"is in use by process {holder.pid} on .*: wait") as caught:
            Lease(store).acquire()
        assert "\n" not in str(caught.value)
        assert store.list("lock") == ["lock/00000001.json"]
        holder.kill()
        holder.wait()
        with Lease(store) as lease:
            assert lease.epoch == 2
            lease.check()
        assert store.list("lock") == ["lock/00000002.json"]


def test_racing_drivers_after_a_death_have_one_winner(store: Store, uri: str) -> None:
    with child(HOLDER, uri) as holder:
        assert hear(holder) == "held"
        holder.kill()
    with child(RACER, uri) as first, child(RACER, uri) as second, child(RACER, uri) as third:
        racers = (first, second, third)
        assert [hear(racer) for racer in racers] == ["ready"] * 3
        for racer in racers:
            say(racer)
        assert sorted(hear(racer) for racer in racers) == ["held", "refused", "refused"]


def test_released_is_free_at_once(store: Store) -> None:
    with Lease(store) as first:
        with pytest.raises(RunLockedError):
            Lease(store).acquire()
        assert first.epoch == 1
    with Lease(store) as second:
        assert second.epoch == 2


def test_a_driver_may_wait_for_another_to_end(
    store: Store, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("uniemo_ray.store.lease._LOOK_AGAIN_S", 0.05)
    with child(HOLDER, uri) as holder:
        assert hear(holder) == "held"
        threading.Timer(0.5, holder.kill).start()
        second = Lease(store)
        second.acquire(wait_s=30)
    assert second.epoch == 2
    second.release()
    told = [line for line in caplog.messages if line.startswith("waiting up to 30 s: ")]
    assert len(told) == 1
    assert f"is in use by process {holder.pid}" in told[0]
    assert "wait until" not in told[0]


def test_the_wait_for_another_driver_has_an_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemo_ray.store.lease._LOOK_AGAIN_S", 0.05)
    with Lease(store):
        start = time.monotonic()
        with pytest.raises(RunLockedError, match="is in use by process"):
            Lease(store).acquire(wait_s=0.3)
        assert 0.3 <= time.monotonic() - start < 3


def move_to_another_machine(store: Store, key: str) -> None:
    values = store.read_json(key)
    values["process"] |= {"host": "elsewhere", "boot_id": "another"}
    store.write_json(key, values)


def test_a_silent_driver_elsewhere_is_superseded_after_its_time(store: Store) -> None:
    Lease(store, ttl_s=1.0)._try_to_take()  # taken, but it never beats
    move_to_another_machine(store, "lock/00000001.json")
    start = time.monotonic()
    with Lease(store) as lease:
        assert time.monotonic() - start >= 1.0
        assert lease.epoch == 2


def test_lost_storage_does_not_make_a_driver_elsewhere_look_dead(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage is gone for as long as a silent driver is given; then it beats again, a little later."""
    Lease(store, ttl_s=1.0)._try_to_take()
    key = "lock/00000001.json"
    move_to_another_machine(store, key)
    watcher, reads = Lease(store, ttl_s=1.0), []
    read = watcher._read

    def slow(epoch: int) -> Holder | None:
        found = read(epoch)
        reads.append(epoch)
        if len(reads) == 2:  # the first look at it that waits
            time.sleep(1.2)
        if len(reads) == 6:
            store.write_json(key, {**store.read_json(key), "beat": 1})
        return found

    monkeypatch.setattr(watcher, "_read", slow)
    with pytest.raises(RunLockedError):
        watcher.acquire()


def test_a_lease_of_another_release_is_named(store: Store) -> None:
    store.write_json("lock/00000001.json", {"driver": "of another release"})
    with pytest.raises(
        StoreError, match=r"lock/00000001\.json is no lease of this release .*: delete it once"
    ):
        Lease(store).acquire()


def test_a_beating_driver_elsewhere_is_left_alone(store: Store) -> None:
    Lease(store, ttl_s=2.0)._try_to_take()
    move_to_another_machine(store, "lock/00000001.json")
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(0.3):
            values = store.read_json("lock/00000001.json")
            store.write_json("lock/00000001.json", values | {"beat": values["beat"] + 1})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunLockedError, match="on elsewhere"):
            Lease(store).acquire()
    finally:
        is_over.set()
        thread.join()


def test_a_held_lease_beats(store: Store) -> None:
    with Lease(store, ttl_s=0.2):
        before = json.loads(store.read_bytes("lock/00000001.json"))["beat"]
        deadline = time.monotonic() + 5
        while json.loads(store.read_bytes("lock/00000001.json"))["beat"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_driver_that_was_taken_over_may_not_commit(store: Store) -> None:
    late = Lease(store, ttl_s=0.5)
    assert late._try_to_take()
    late.check()
    move_to_another_machine(store, "lock/00000001.json")
    with Lease(store):
        with pytest.raises(StoreError, match=r"another driver has taken over .* \(lease 2, ours was 1\)"):
            late.check()
        late.release()  # writes its old number, which harms nobody
        with pytest.raises(RunLockedError):
            Lease(store).acquire()


def test_nothing_held_nothing_committed(store: Store) -> None:
    with pytest.raises(StoreError):
        Lease(store).check()


ELSEWHERE = """
import sys, time
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.lease import Lease
with Lease(open_store(sys.argv[1]), ttl_s=2.0):
    print(time.time(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_clocks_an_hour_apart(tmp_path: Path, skew_s: int) -> None:
    """A driver whose clock is wrong, in a container of its own as on another machine."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    skewed = skewed_clock(tmp_path, skew_s)
    uri = str(tmp_path / "run")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", ELSEWHERE, uri]
    environment = os.environ | skewed
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        try:
            assert abs(float(hear(other)) - time.time() - skew_s) < 60
            with pytest.raises(RunLockedError, match="is in use by process 1 on "):
                Lease(open_store(uri)).acquire()
            other.kill()
            with Lease(open_store(uri)) as lease:
                assert lease.epoch == 2
        finally:
            other.kill()
