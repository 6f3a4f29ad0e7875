"""A real head: submit by token, refuse a wrong one, pass the exit code, leave nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from uniemo_ray.head.state import HeadState, processes, read_state

ROOT = Path(__file__).parents[2]
JOB = """
import os, sys, ray
ray.init(log_to_driver=False)
double = ray.remote(lambda i: 2 * i)
total = sum(ray.get([double.remote(i) for i in range(5)]))
print("sum", total, "token" in os.environ["RAY_AUTH_MODE"])
# where a worker looks for the cluster's state; without it, every Ray of the machine could be meant
print("jobs api", ray.get(ray.remote(lambda: os.environ.get("RAY_API_SERVER_ADDRESS")).remote()))
sys.exit(int(sys.argv[1]))
"""


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return clean | {"PYTHONPATH": str(ROOT)}


def head(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--state", str(state), "--object-store-mb", "100"]
    command = [sys.executable, "-m", "uniemo_ray.head", *options, *arguments]
    return subprocess.run(
        command, env=environment(), cwd=state.parent, capture_output=True, text=True, timeout=400, check=False
    )


def wait_for_state(folder: Path) -> HeadState:
    deadline = time.monotonic() + 300
    while (state := read_state(folder)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return state


def assert_gone(state: HeadState) -> None:
    deadline = time.monotonic() + 60
    while (processes(state) or Path(state.temp_dir).exists()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert processes(state) == []
    assert not Path(state.temp_dir).exists()


def test_usage_errors_are_one_line(tmp_path):
    for arguments, words in [(["env"], "no Ray head runs"), (["run"], "run expects a command")]:
        done = head(tmp_path / "state", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_temporary_folder_too_long_for_sockets_is_refused(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    done = head(tmp_path / "state", "start")
    assert done.returncode == 2
    assert "too long for Ray's sockets: set TMPDIR" in done.stderr
    assert list(long.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_by_token_on_loopback(tmp_path):
    state_folder = tmp_path / ".ray-head" / "test"
    state_folder.parent.mkdir()
    (tmp_path / "job.py").write_text(JOB)
    started = head(state_folder, "start")
    state = read_state(state_folder)
    assert state is not None, started.stderr
    try:
        assert Path(state.token_path).stat().st_mode & 0o077 == 0
        assert listening_beyond_loopback(state) == set()
        second = head(state_folder, "start")
        assert second.returncode == 2, Path(state.log_path).read_text()  # never two in one folder
        for code in (0, 3):
            done = submit(tmp_path, {}, "--address", state.address, token=state, code=code)
            assert done.returncode == code, done.stdout + done.stderr
            assert f"--submission-id job-{1 if code == 0 else 2} " in done.stderr
            assert "sum 20 True" in done.stdout
            assert f"jobs api {state.address}" in done.stdout
        wrong = submit(tmp_path, {"RAY_AUTH_TOKEN": "0" * 64}, "--address", state.address)
        assert wrong.returncode == 2
        assert wrong.stderr.startswith(f"error: the Ray head at {state.address} refuses the token")
        assert wrong.stderr.count("\n") == 1
    finally:
        stopped = head(state_folder, "stop")
    assert stopped.stdout == "Ray head stopped\n"
    assert_gone(state)


def submit(folder, variables, *options, token: HeadState | None = None, code: int = 0):
    found = {} if token is None else {"RAY_AUTH_TOKEN_PATH": token.token_path}
    command = [sys.executable, "-m", "uniemo_ray.cli", "submit", *options, "job.py", "--", str(code)]
    return subprocess.run(
        command,
        env=environment() | found | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def listening_beyond_loopback(state: HeadState) -> set[str]:
    """Addresses of listening sockets of the head that another machine could reach."""
    open_to: set[str] = set()
    for process in processes(state):
        with contextlib.suppress(psutil.NoSuchProcess):  # workers come and go
            connections = process.net_connections("inet")
            open_to |= {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}
    assert open_to  # the probe sees something
    return {ip for ip in open_to if not ip.removeprefix("::ffff:").startswith("127.") and ip != "::1"}


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_takes_the_head_away_when_it_is_ended(tmp_path, number):
    state_folder = tmp_path / "state"
    ready = tmp_path / "ready.json"
    child = [sys.executable, "-c", f"import time; open({str(ready)!r}, 'w').write('{{}}'); time.sleep(200)"]
    command = [
        sys.executable,
        "-m",
        "uniemo_ray.head",
        "--state",
        str(state_folder),
        "--object-store-mb",
        "100",
        "run",
        "--",
        *child,
    ]
    runner = subprocess.Popen(command, env=environment(), cwd=tmp_path)
    state = wait_for_state(state_folder)
    deadline = time.monotonic() + 300
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert json.loads(ready.read_text()) == {}
    children = psutil.Process(runner.pid).children(recursive=True)
    runner.send_signal(number)
    code = runner.wait(timeout=60)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert_gone(state)
    if number == signal.SIGKILL:
        for process in children:  # the command itself cannot know
            if process.is_running():
                process.kill()
