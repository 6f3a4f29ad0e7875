"""Which processes belong to a head: real processes, no Ray."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from uniemo_ray.head.process import stop_head
from uniemo_ray.head.state import MARKER, HeadState, is_alive, processes, read_state, write_state

# A leader with a child in its session, a child in a session of its own that carries the marker, and one in a
# session of its own without it.
LEADER = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
bare = {key: value for key, value in os.environ.items() if key != "UNIEMO_RAY_HEAD"}
subprocess.Popen(sleep, env=bare)
subprocess.Popen(sleep, start_new_session=True)
subprocess.Popen(sleep, env=bare, start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def head(tmp_path) -> Iterator[HeadState]:
    name = tmp_path.name  # of this test alone: others may run beside it
    environment = {**os.environ, MARKER: name}
    child = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    members = psutil.Process(child.pid).children()
    temp_dir = tmp_path / "sessions"
    temp_dir.mkdir()
    (tmp_path / "token").write_text("t")
    yield HeadState(
        name=name,
        pid=child.pid,
        created_at_s=psutil.Process(child.pid).create_time(),
        address="http://127.0.0.1:1",
        gcs_address="127.0.0.1:2",
        agent_address="http://127.0.0.1:3",
        token_path=str(tmp_path / "token"),
        temp_dir=str(temp_dir),
        log_path=str(tmp_path / "head.log"),
    )
    for process in [*members, psutil.Process(child.pid)] if psutil.pid_exists(child.pid) else members:
        if process.is_running():
            process.kill()
    child.wait()


def test_the_state_survives_the_file(head, tmp_path):
    assert read_state(tmp_path) is None
    write_state(tmp_path, head)
    assert read_state(tmp_path) == head
    assert [path.name for path in tmp_path.glob("state.json*")] == ["state.json"]


def test_all_descendants_belong(head):
    assert is_alive(head)
    assert len(processes(head)) == 4


def test_a_dead_leader_leaves_session_and_marker(head):
    psutil.Process(head.pid).kill()
    deadline = time.monotonic() + 10
    while is_alive(head) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(head)
    assert len(processes(head)) == 2  # the one without marker and session cannot be told any more


def test_a_reused_process_id_is_not_ours(head):
    other = replace(head, created_at_s=head.created_at_s - 100, name="other")
    assert not is_alive(other)
    assert processes(other) == []


def test_stop_ends_exactly_the_heads_processes(head, tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    members = processes(head)
    write_state(tmp_path, head)
    assert stop_head(tmp_path)
    assert [
        process for process in members if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ] == []
    assert bystander.poll() is None
    assert not (tmp_path / "sessions").exists()
    assert not (tmp_path / "token").exists()
    assert read_state(tmp_path) is None
    assert not stop_head(tmp_path)
    bystander.kill()
    bystander.wait()
