"""What is known about a local Ray head: its state file, and which processes belong to it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MARKER = "UNIEMO_RAY_HEAD"
"""Environment variable that every process of a head inherits; its value is the head's own random name."""

STATE_FILE = "state.json"


@dataclass(frozen=True)
class HeadState:
    """A running head, as written to `state.json`."""

    name: str
    """Value of `MARKER` in the environment of all its processes."""
    pid: int
    """Process that started the others and ends them on SIGTERM; also the id of their session."""
    created_at_s: float
    """When that process was created, seconds since the epoch: tells it from a later one with the same id."""
    address: str
    """Dashboard and Jobs API, `http://127.0.0.1:PORT`."""
    gcs_address: str
    """What `ray.init` and `serve run` connect to, `127.0.0.1:PORT`."""
    agent_address: str
    """Job agent of the head node, `http://127.0.0.1:PORT`."""
    token_path: str
    """File with the authentication token, readable by its owner only."""
    temp_dir: str
    """Folder that only its owner can enter: Ray's sessions, sockets and logs, and the files of HAProxy."""
    log_path: str
    """Output of the head process."""


def write_state(folder: Path, state: HeadState) -> None:
    """Replace the state file in one step."""
    partial = folder / f"{STATE_FILE}.{os.getpid()}"
    partial.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / STATE_FILE)


def read_state(folder: Path) -> HeadState | None:
    """The head recorded in `folder`, running or not; None when there is no record."""
    path = folder / STATE_FILE
    return HeadState(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def processes(state: HeadState) -> list[psutil.Process]:
    """All processes of a head, including its workers and the jobs' drivers.

    They share its session or carry `MARKER` in their environment (Ray renames some of its processes, which
    overwrites their environment; job drivers get a session of their own), or descend from one that does.
    """
    if _is_reused(state):
        return []
    members = {process.pid: process for process in psutil.process_iter() if _belongs(process, state)}
    for process in list(members.values()):
        members |= {child.pid: child for child in _children(process)}
    return [process for process in members.values() if _is_running(process)]


def is_alive(state: HeadState) -> bool:
    """Whether the head's first process still runs (a reused process id does not count)."""
    if not psutil.pid_exists(state.pid) or _is_reused(state):
        return False
    return _is_running(psutil.Process(state.pid))


def _belongs(process: psutil.Process, state: HeadState) -> bool:
    try:
        return os.getsid(process.pid) == state.pid or process.environ().get(MARKER) == state.name
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or somebody else's


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_reused(state: HeadState) -> bool:
    """Whether the process id now names a process that is not ours; that of a session in use stays taken."""
    try:
        return abs(psutil.Process(state.pid).create_time() - state.created_at_s) > 1.0
    except psutil.Error:
        return False
