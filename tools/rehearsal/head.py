"""A Ray head without CPUs whose autoscaler starts and ends machines, which are processes of this computer."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler.v2.sdk import get_cluster_status

from uniemo_ray.head.process import CLUSTER_SWITCH
from uniemo_ray.head.state import MARKER, HeadState, processes

HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
"""The provider's own names for the head and its kind."""
LOOPBACK = {CLUSTER_SWITCH: "0"}
"""Of the head and its drivers: without it, Ray puts the machine's own address in the place of 127.0.0.1."""
START_S = 180
STORE_BYTES = 100_000_000
"""Object store of the head and of each machine."""
ROOT = Path(__file__).parents[2]
PROVIDER = "tools.rehearsal.provider.Machines"

_COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
)


def plain_machines(most: int) -> dict[str, Any]:
    """Up to so many machines of one type, with one CPU each."""
    return {"machine": machine_type(most=most)}


def machine_type(*, most: int, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A type of machine of one CPU, as an autoscaler's configuration describes it."""
    return {
        "resources": {"CPU": 1, "memory": 2_000_000_000, "object_store_memory": STORE_BYTES},
        "node_config": {},
        "labels": dict(labels or {}),
        "min_workers": 0,
        "max_workers": most,
    }


@contextmanager
def autoscaling_head(types: Mapping[str, Any], *, idle_minutes: float) -> Iterator[str]:
    """A cluster of no machine beside the head, and of these types where work waits; yields its address."""
    mark, port = secrets.token_hex(8), _free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        config = Path(scratch) / "autoscaling.json"
        config.write_text(json.dumps(_config(address, types, idle_minutes=idle_minutes)))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--port={port}", "--num-cpus=0", f"--temp-dir={scratch}", "--include-dashboard=false"]
        command += [
            f"--ray-client-server-port={_free_port()}",
            f"--dashboard-agent-listen-port={_free_port()}",
        ]
        command += ["--node-ip-address=127.0.0.1", f"--autoscaling-config={config}"]
        command += [f"--object-store-memory={STORE_BYTES}"]
        with (Path(scratch) / "head.log").open("w") as log:
            head = subprocess.Popen(
                command, env=_environment(mark), stdout=log, stderr=log, start_new_session=True
            )
            started = psutil.Process(head.pid).create_time()
            try:
                _wait_until_ready(address, port, head, Path(log.name))
                yield address
            finally:
                _end(head, mark, started)


def machines(address: str) -> int:
    """Machines beside the head."""
    status = get_cluster_status(address)
    return sum(node.instance_id != HEAD_ID for node in (*status.active_nodes, *status.idle_nodes))


def _config(address: str, types: Mapping[str, Any], *, idle_minutes: float) -> dict[str, object]:
    provider = {
        "type": "external",
        "module": PROVIDER,
        "launch_multiple": True,
        "disable_node_updaters": True,
    }
    unused: dict[str, object] = {
        key: [] for key in _COMMANDS
    }  # of a launcher's file: the provider starts no shell
    return {
        **unused,
        "file_mounts": {},
        "auth": {},
        "cluster_name": "test",
        "max_workers": sum(type_["max_workers"] for type_ in types.values()),
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": 100.0,
        "provider": {**provider, "head_node_id": HEAD_ID, "gcs_address": address},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **types,
        },
    }


def _environment(mark: str) -> dict[str, str]:
    own = {
        MARKER: mark,
        "RAY_AUTH_MODE": "disabled",
        **LOOPBACK,
        "PYTHONPATH": str(ROOT),
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    return {**os.environ, **own}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(address: str, port: int, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        # no server, or none with a status yet: Ray has many words for it
        with suppress(Exception), socket.create_connection(("127.0.0.1", port), timeout=1):
            get_cluster_status(address)
            return
        time.sleep(0.5)


def _end(head: "subprocess.Popen[bytes]", mark: str, started: float) -> None:
    """Kill the cluster's processes, and those that they started meanwhile."""
    nowhere = dict.fromkeys(
        ("address", "gcs_address", "agent_address", "token_path", "temp_dir", "log_path"), ""
    )
    state = HeadState(name=mark, pid=head.pid, created_at_s=started, **nowhere)
    while found := processes(state):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=10)
    head.wait(timeout=60)
