"""Telling whether the process that wrote a lease still lives."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, so that neither a reused number nor another machine's can be taken for it."""

    host: str
    boot_id: str
    """Changes with every start of the machine; empty where the system does not tell."""
    pid_namespace: str
    """Containers on one machine count their processes apart."""
    pid: int
    start_ticks: str
    """When the process started, in ticks since boot."""


def this_process() -> ProcessIdentity:
    """The running process."""
    boot_id, namespace = _machine()
    state_and_start = _state_and_start(os.getpid())
    return ProcessIdentity(
        host=socket.gethostname(),
        boot_id=boot_id,
        pid_namespace=namespace,
        pid=os.getpid(),
        start_ticks=state_and_start[1] if state_and_start else "",
    )


def is_same_machine(process: ProcessIdentity) -> bool:
    """Whether this process can look the other one up: same boot, same process numbering."""
    boot_id, namespace = _machine()
    return bool(boot_id) and (process.boot_id, process.pid_namespace) == (boot_id, namespace)


def is_alive(process: ProcessIdentity) -> bool:
    """Whether a process of this machine still runs; a killed one that nobody has reaped does not."""
    found = _state_and_start(process.pid)
    return found is not None and found[0] not in ("Z", "X") and found[1] == process.start_ticks


def is_stopped(process: ProcessIdentity) -> bool:
    """Whether a process of this machine was stopped by a signal or a debugger: it lives and does nothing."""
    found = _state_and_start(process.pid)
    return found is not None and found[0] in ("T", "t") and found[1] == process.start_ticks


def _machine() -> tuple[str, str]:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return boot_id, os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""  # not Linux: leases then go by their heartbeat


def _state_and_start(pid: int) -> tuple[str, str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command name before it may hold spaces and brackets
    return fields[0], fields[19]
