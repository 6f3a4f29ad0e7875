"""The file system for other servers than Amazon's, as it travels to workers."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from uniemo_ray.store.arrow_s3 import PlainS3FileSystem, endpoint_to_keep
from uniemo_ray.store.s3 import S3Store

SHOW = """
import os, pickle, sys
found = pickle.load(sys.stdin.buffer)
again = pickle.loads(pickle.dumps(found))
print(type(again).__name__, os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"], again.region)
"""


def test_a_worker_sends_bodies_as_its_driver_does() -> None:
    options = {"endpoint_override": "127.0.0.1:1", "scheme": "http", "region": "here"}
    sent = pickle.dumps(PlainS3FileSystem(**options, access_key="a", secret_key="b"))
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    worker = subprocess.run([sys.executable, "-c", SHOW], input=sent, env=bare, capture_output=True)
    assert worker.stdout.decode().split() == ["PlainS3FileSystem", "when_required", "here"], worker.stderr


PRIVATE = "https://bucket.vpce-0a1b2c3d-4e5f.s3.us-east-1.vpce.amazonaws.com"
ASK = """
import pickle, sys
store = pickle.load(sys.stdin.buffer)
print(store._client.meta.endpoint_url, type(store.arrow()[0]).__name__)
"""


@pytest.mark.parametrize(
    ("url", "is_kept"),
    [
        ("https://s3.amazonaws.com", False),
        ("https://s3.us-east-1.amazonaws.com", False),
        ("https://s3.us-east-1.amazonaws.com/", False),
        (PRIVATE, True),
        ("https://s3-fips.us-east-1.amazonaws.com", True),
        ("https://s3.dualstack.us-east-1.amazonaws.com", True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("http://s3.us-east-1.amazonaws.com", True),
        ("https://s3.amazonaws.com.evil.example", True),
        ("http://127.0.0.1:9000", True),
    ],
)
def test_every_endpoint_but_the_public_one_is_kept(url: str, is_kept: bool) -> None:
    assert endpoint_to_keep(url, region="us-east-1") == (url if is_kept else None)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with keys and nothing else of boto3's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_interface_endpoint_goes_with_the_store_to_workers(
    chain: pytest.MonkeyPatch, variable: str
) -> None:
    chain.setenv(variable, PRIVATE)
    store = S3Store.from_environment("data", "runs/a")
    assert store.endpoint == store.sub("x").endpoint == PRIVATE
    bare = {name: value for name, value in os.environ.items() if name != variable}
    worker = subprocess.run(
        [sys.executable, "-c", ASK], input=pickle.dumps(store), env=bare, capture_output=True, check=False
    )
    assert worker.stdout.decode().split() == [PRIVATE, "PlainS3FileSystem"], worker.stderr


def test_a_worker_keeps_the_public_endpoint_of_its_driver(chain: pytest.MonkeyPatch) -> None:
    store = S3Store.from_environment("data", "runs/a")
    assert store.endpoint is None
    told = os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    worker = subprocess.run(
        [sys.executable, "-c", ASK], input=pickle.dumps(store), env=told, capture_output=True, check=False
    )
    url, kind = worker.stdout.decode().split()
    assert url.endswith(".amazonaws.com")
    assert kind == "S3FileSystem"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """Address of a server that has nothing, and who asked it."""
    agents: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            agents.append(self.headers.get("User-Agent", ""))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", agents
    server.shutdown()


def test_both_clients_ask_the_same_server(chain: pytest.MonkeyPatch, listener: tuple[str, list[str]]) -> None:
    url, agents = listener
    chain.setenv("AWS_ENDPOINT_URL_S3", url)
    store = S3Store.from_environment("data", "runs/a")
    assert not store.exists("x")
    filesystem, root = store.arrow()
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_stream(f"{root}/x")
    assert "Boto3" in agents[0]
    assert "aws-sdk-cpp" in agents[-1]
