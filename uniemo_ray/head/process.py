"""Start and stop the processes of a local Ray head."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil

from uniemo_ray.addresses import without_proxy
from uniemo_ray.head.private import LOOPBACK, free_ports, make_private_folder, ray_folder, serve_environment
from uniemo_ray.head.state import MARKER, STATE_FILE, HeadState, is_alive, processes, read_state, write_state

CLUSTER_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Off, the node's address is 127.0.0.1 and all servers of Ray bind to it (the default on macOS and Windows);
on, `--node-ip-address=127.0.0.1` is replaced by the address of the network interface."""
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 5.0


class HeadError(Exception):
    """A head that cannot be started or used, in one line."""


def start_head(folder: Path, *, num_cpus: int | None, store_mb: int) -> HeadState:
    """Start a head that keeps its state, token and log in `folder`, and wait until it takes jobs.

    Raises:
        HeadError: a head of this folder runs already, or it did not come up; the log is named.
    """
    old = read_state(folder)
    if old is not None and is_alive(old):
        raise HeadError(
            f"a Ray head already runs for {folder} at {old.address} (process {old.pid}): stop it first"
        )
    stop_head(folder)  # what a killed head may have left behind
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    state, command = _plan_head(folder.resolve(), num_cpus=num_cpus, store_mb=store_mb)
    try:
        state = _launch(folder, state, command)
        _wait_until_ready(state)
    except BaseException:
        stop_head(folder)
        shutil.rmtree(state.temp_dir, ignore_errors=True)
        raise
    return state


def stop_head(folder: Path) -> bool:
    """End the processes of the head recorded in `folder`, and only those; remove its files.

    Returns:
        Whether anything was running.
    """
    state = read_state(folder)
    if state is None:
        return False
    running = _end_processes(state)
    shutil.rmtree(state.temp_dir, ignore_errors=True)
    Path(state.token_path).unlink(missing_ok=True)
    (folder / STATE_FILE).unlink(missing_ok=True)
    return running


def client_environment(state: HeadState) -> dict[str, str]:
    """This process' environment plus what Ray's clients need to reach the head."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_AUTH_TOKEN", MARKER)}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RAY_ADDRESS": state.gcs_address,
        "RAY_API_SERVER_ADDRESS": state.address,  # `ray job` reads this, `serve` the next
        "RAY_DASHBOARD_ADDRESS": state.address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": state.token_path,
        "RAY_USAGE_STATS_ENABLED": "0",
        CLUSTER_SWITCH: "0",
        **without_proxy(os.environ),
    }


def _plan_head(folder: Path, *, num_cpus: int | None, store_mb: int) -> tuple[HeadState, list[str]]:
    try:
        temp_dir = make_private_folder()
    except ValueError as error:
        raise HeadError(str(error)) from None
    gcs, dashboard, agent, client = free_ports(4)
    state = HeadState(
        name=secrets.token_hex(8),
        pid=0,
        created_at_s=0.0,
        address=f"http://{LOOPBACK}:{dashboard}",
        gcs_address=f"{LOOPBACK}:{gcs}",
        agent_address=f"http://{LOOPBACK}:{agent}",
        token_path=str(_write_token(folder)),
        temp_dir=temp_dir,
        log_path=str(folder / "head.log"),
    )
    options = {
        "node-ip-address": LOOPBACK,
        "port": gcs,
        "dashboard-host": LOOPBACK,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "temp-dir": ray_folder(temp_dir),
        "num-cpus": num_cpus or max(2, os.cpu_count() or 2),
        "object-store-memory": store_mb * 1_000_000,
    }
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    return state, command + [f"--{key}={value}" for key, value in options.items()]


def _launch(folder: Path, state: HeadState, command: list[str]) -> HeadState:
    environment = client_environment(state)
    environment |= serve_environment(state.temp_dir, environment)
    environment |= {
        MARKER: state.name,
        # One machine: what answers late is busy, not dead.
        "RAY_health_check_failure_threshold": "20",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    }
    # `ray start` and the jobs' drivers find their way without. The Jobs API's address stays: actors of Ray
    # Train ask for it, and search the machine for any Ray where it is missing.
    for name in ("RAY_ADDRESS", "RAY_DASHBOARD_ADDRESS"):
        del environment[name]
    with open(state.log_path, "ab") as log:  # an earlier head may have said why it ended
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    started = replace(state, pid=child.pid, created_at_s=psutil.Process(child.pid).create_time())
    write_state(folder, started)
    return started


def _wait_until_ready(state: HeadState) -> None:
    """Wait for the Jobs API and the job agent: without the agent a submission fails."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if not is_alive(state):
            raise HeadError(f"the Ray head ended while starting: see {state.log_path}")
        if _answers(f"{state.address}/api/jobs/", state) and _answers(
            f"{state.agent_address}/api/healthz", state
        ):
            return
        time.sleep(0.3)
    raise HeadError(f"the Ray head did not take jobs within {START_TIMEOUT_S:.0f} s: see {state.log_path}")


def _answers(url: str, state: HeadState) -> bool:
    token = Path(state.token_path).read_text(encoding="utf-8")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for loopback
    try:
        with opener.open(request, timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 404  # the agent is up, whatever its pages are called
    except OSError:
        return False


def _end_processes(state: HeadState) -> bool:
    members = processes(state)
    found = bool(members)
    for end in (psutil.Process.terminate, psutil.Process.kill, psutil.Process.kill):
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        _gone, alive = psutil.wait_procs(members, timeout=STOP_TIMEOUT_S)
        members = list({*alive, *processes(state)})
    return found


def _write_token(folder: Path) -> Path:
    path = folder / "token"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(32))
    return path
