"""What a local head must not share with anybody else on the machine: its files, and its fixed ports.

Ray opens its own folder, with uploaded code, sockets and logs, to every user of the machine, and keeps the
files of HAProxy in one fixed folder. So both get a place in a folder that only its owner can enter.
"""

import os
import random
import socket
import tempfile
from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
RAY_FOLDER = "ray"
HAPROXY_SOCKET = "s"
_RAY_SOCKET = f"/{RAY_FOLDER}/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
_NODE_ID_CHARACTERS = 56
_HAPROXY_SOCKET = f"/{'0' * _NODE_ID_CHARACTERS}/{HAPROXY_SOCKET}"
"""Ray puts a folder for the node between a path of HAProxy and its last part."""
_LONGEST = {_RAY_SOCKET: 107, _HAPROXY_SOCKET: 97}
"""Most characters of a socket's path. HAProxy binds a longer name first and renames it."""
_PREFIX = "uniemo-"
_RANDOM_CHARACTERS = 8
_PORTS = range(20_000, 30_000)
"""Neither the system's own choices (32768 and up), nor the ports of Ray's workers (up to 19999) and of
Serve's replicas (30000 and up). So a port that is free now is free when its server starts, a minute later."""
_HAPROXY_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


def make_private_folder() -> str:
    """A new folder that only its owner can enter, short enough for the sockets below it.

    Raises:
        ValueError: the temporary folder's own path is too long.
    """
    parent = tempfile.gettempdir()
    name = 1 + len(_PREFIX) + _RANDOM_CHARACTERS
    most = min(limit - len(below) - name for below, limit in _LONGEST.items())
    if len(parent) > most:
        raise ValueError(
            f"the temporary folder {parent} is too long for Ray's sockets: "
            f"set TMPDIR to a folder of at most {most} characters"
        )
    return tempfile.mkdtemp(prefix=_PREFIX)  # its mode is 0700


def serve_environment(folder: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Where Serve and HAProxy keep their files and listen; what the user has set stays.

    Args:
        folder: the head's private folder.
        inherited: the user's environment.
    """
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/{HAPROXY_SOCKET}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
    }
    ports = zip(_HAPROXY_PORTS, map(str, free_ports(len(_HAPROXY_PORTS))), strict=True)
    wanted = files | dict(ports)
    return {name: value for name, value in wanted.items() if name not in inherited}


def free_ports(count: int) -> list[int]:
    """Different ports on loopback that nobody listens on, in random order."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed lately is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def ray_folder(folder: str) -> str:
    """Ray's folder in the private one. Ray makes it, and everything in it, open to all users."""
    return os.path.join(folder, RAY_FOLDER)
