"""Finding a cluster and its token, and what its refusals say: against a real HTTP server on loopback."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests

from uniemo_ray.cli.cluster import DEFAULT_ADDRESS, Cluster, ClusterError, find_cluster


class Dashboard(BaseHTTPRequestHandler):
    """Answers like a Ray dashboard whose token is `right`."""

    def do_GET(self) -> None:
        header = self.headers.get("Authorization")
        status = 401 if header is None else 200 if header == "Bearer right" else 403
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps([self.path]).encode() if status == 200 else b"no")

    def log_message(self, *_args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_get_sends_the_token(dashboard):
    assert Cluster(dashboard, "right").get("/api/jobs/") == ["/api/jobs/"]


@pytest.mark.parametrize(
    ("token", "words"), [("wrong", "refuses the token"), (None, "wants a token and got none")]
)
def test_refusals_say_what_to_do(dashboard, token, words):
    with pytest.raises(ClusterError, match=words) as caught:
        Cluster(dashboard, token).get("/api/jobs/")
    assert "RAY_AUTH_TOKEN_PATH" in str(caught.value)
    assert dashboard in str(caught.value)


def test_no_head_says_how_to_start_one(dashboard):
    with pytest.raises(
        ClusterError, match=r"no Ray head answers at http://127\.0\.0\.1:1 .*uniemo head start"
    ):
        Cluster("http://127.0.0.1:1", None).get("/api/jobs/")


def test_a_head_that_is_no_dashboard(dashboard):
    with pytest.raises(ClusterError, match="no Ray head answers"):
        Cluster("http://no-such-host.invalid:1", None).get("/api/jobs/")


def test_the_address_given_wins(tmp_path):
    environ = {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:2", "RAY_AUTH_TOKEN": " t "}
    assert find_cluster("http://c:3/", folder=tmp_path, environ=environ) == Cluster("http://c:3", "t")
    assert find_cluster(None, folder=tmp_path, environ=environ) == Cluster("http://a:1", "t")
    del environ["RAY_API_SERVER_ADDRESS"]
    assert find_cluster(None, folder=tmp_path, environ=environ) == Cluster("http://b:2", "t")


def test_authentication_can_be_switched_off(tmp_path):
    environ = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "t"}
    cluster = find_cluster(None, folder=tmp_path, environ=environ)
    assert cluster == Cluster(DEFAULT_ADDRESS, None)
    assert cluster.environment()["RAY_AUTH_MODE"] == "disabled"


def test_token_file(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    found = find_cluster(
        "http://a:1", folder=tmp_path, environ={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    )
    assert found.environment() == {
        "RAY_API_SERVER_ADDRESS": "http://a:1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "from-file",
    }


def test_missing_token_file_is_named(tmp_path):
    with pytest.raises(ClusterError, match=r"cannot read the token file .*gone: No such file"):
        find_cluster("http://a:1", folder=tmp_path, environ={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "gone")})


def write_head(folder, name):
    state = folder / ".ray-head" / name
    state.mkdir(parents=True)
    (state / "token").write_text(f"token-{name}")
    (state / "state.json").write_text(
        json.dumps({"address": f"http://127.0.0.1/{name}", "token_path": str(state / "token")})
    )


def test_the_local_head_is_found_when_nothing_is_said(tmp_path):
    write_head(tmp_path, "demo")
    assert find_cluster(None, folder=tmp_path, environ={}) == Cluster("http://127.0.0.1/demo", "token-demo")
    assert (
        find_cluster("http://a:1", folder=tmp_path, environ={"RAY_AUTH_TOKEN": "t"}).address == "http://a:1"
    )


def test_several_local_heads_are_not_guessed(tmp_path):
    write_head(tmp_path, "demo")
    write_head(tmp_path, "serve")
    with pytest.raises(ClusterError, match="several local Ray heads"):
        find_cluster(None, folder=tmp_path, environ={})


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "ray://127.0.0.1:10001", "http://"])
def test_addresses_that_are_no_dashboard(tmp_path, address):
    with pytest.raises(ClusterError, match="must be the dashboard's"):
        find_cluster(address, folder=tmp_path, environ={})


@pytest.fixture
def proxied(monkeypatch):
    """An environment whose proxy answers nothing."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_rays_own_client_asks_no_proxy_for_a_head_on_this_machine(dashboard, proxied, monkeypatch):
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(dashboard, timeout=5)
    for name, value in Cluster(dashboard, "right").environment().items():
        monkeypatch.setenv(name, value)
    answer = requests.get(dashboard, headers={"Authorization": "Bearer right"}, timeout=5)
    assert answer.status_code == 200


def test_hosts_that_the_user_has_named_stay(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,.example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    found = Cluster("http://localhost:8265", None).environment()
    assert found["no_proxy"] == found["NO_PROXY"] == "10.0.0.0/8,.example.org,127.0.0.1,localhost,::1"
    assert "no_proxy" not in Cluster("http://10.0.0.1:8265", None).environment()


def test_a_head_elsewhere_that_is_asked_through_a_proxy_says_so(proxied):
    with pytest.raises(ClusterError, match=r"the proxy http://127\.0\.0\.1:9 was asked, NO_PROXY names"):
        Cluster("http://ray.invalid:8265", None).get("/api/jobs/")


def test_a_user_without_a_home_folder_has_no_token(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    assert find_cluster("http://a:1", folder=tmp_path, environ={}) == Cluster("http://a:1", None)
