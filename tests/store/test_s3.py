"""What only S3 can do wrong, against a real server."""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import boto3
import pytest

from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import open_store


@contextmanager
def lossy_proxy(target: str) -> Iterator[tuple[str, threading.Event]]:
    """A proxy to a server that, while the event is set, delivers one request but not its answer."""
    lose = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    address = urlsplit(target)

    def pump(source: socket.socket, sink: socket.socket, *, is_answer: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_answer and lose.is_set() and b"100 Continue" not in data:
                    lose.clear()
                    break
                sink.sendall(data)
        except OSError:
            pass  # the other side has closed
        for end in (source, sink):
            with suppress(OSError):  # closed already
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.create_connection((address.hostname or "", address.port or 80))
            for ends, is_answer in (((client, upstream), False), ((upstream, client), True)):
                threading.Thread(target=pump, args=ends, kwargs={"is_answer": is_answer}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", lose
    finally:
        server.close()


@pytest.mark.integration
def test_a_put_whose_answer_is_lost_still_counts_as_ours(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lossy_proxy(os.environ["AWS_ENDPOINT_URL"]) as (endpoint, lose):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store(s3_uri)
        lose.set()
        assert store.put_if_absent("a", b"ours")
        assert not lose.is_set(), "no answer was lost"
        assert store.read_bytes("a") == b"ours"
        lose.set()
        assert not store.put_if_absent("a", b"theirs")
        assert store.read_bytes("a") == b"ours"


@pytest.mark.integration
def test_no_such_bucket(s3_uri: str) -> None:
    with pytest.raises(StoreError, match="the bucket of s3://not-a-bucket/x does not exist at http"):
        open_store("s3://not-a-bucket/x")


@pytest.mark.integration
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_key(s3_uri: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "WRONG")
    with pytest.raises(StoreError, match="no permission for s3://uniemo-tests"):
        open_store(s3_uri)


@pytest.mark.integration
def test_empty_folder_markers_are_no_files(s3_uri: str) -> None:
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    boto3.Session().client("s3").put_object(Bucket=bucket, Key=f"{prefix}/", Body=b"")
    assert open_store(s3_uri).is_empty()


def test_unreachable_server_is_known_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    start = time.monotonic()
    with pytest.raises(
        StoreError, match=f"S3 server http://127.0.0.1:{port} is unreachable for s3://bucket/run"
    ):
        open_store("s3://bucket/run")
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("text", ["abc", "0", "-1", "inf"])
def test_a_wrong_timeout_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("UNIEMO_S3_TIMEOUT_S", text)
    with pytest.raises(ValueError, match=f"^UNIEMO_S3_TIMEOUT_S must be a number of seconds .*{text}"):
        open_store("s3://bucket/run")


def test_unknown_addressing_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIEMO_S3_ADDRESSING", "sideways")
    with pytest.raises(
        ValueError, match="UNIEMO_S3_ADDRESSING must be one of auto, path, virtual, got 'sideways'"
    ):
        open_store("s3://bucket/run")


@pytest.mark.integration
def test_a_presigned_link_opens_without_keys(s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.write_bytes("a b/ü.png", b"picture")
    with urllib.request.urlopen(store.presigned_url("a b/ü.png", ttl_s=60), timeout=30) as answer:
        assert answer.read() == b"picture"
    brief = store.presigned_url("a b/ü.png", ttl_s=1)
    time.sleep(2.5)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(brief, timeout=30)


@pytest.mark.integration
@pytest.mark.parametrize("style", ["path", "virtual"])
def test_both_ways_to_name_a_bucket(s3_uri: str, monkeypatch: pytest.MonkeyPatch, style: str) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
    bucket = s3_uri.split("/")[2]
    if style == "virtual":
        try:
            socket.getaddrinfo(f"{bucket}.localhost", 80)
        except OSError:
            pytest.skip(f"this machine does not resolve {bucket}.localhost")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("UNIEMO_S3_ADDRESSING", style)
    hosts = []
    store = open_store(s3_uri)
    store._client.meta.events.register("before-send.s3", lambda request, **_: hosts.append(request.url))
    store.write_bytes("a", b"x")
    filesystem, root = store.arrow()
    assert filesystem.open_input_file(f"{root}/a").read() == b"x"
    start = f"http://{bucket}.localhost" if style == "virtual" else "http://localhost"
    assert all(url.startswith(start) for url in hosts)
