"""Retries against a server on loopback that fails a while."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from uniemo_ray.store import s3_retries
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.s3 import S3Store


@contextmanager
def failing_server(failures: float, status: int = 503) -> Iterator[tuple[str, Counter[str]]]:
    """Answers each key's first requests with an error, and all others with 200."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            with lock:
                seen[self.path] += 1
                is_failing = seen[self.path] <= failures
            self.send_response(status if is_failing else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


def store_at(endpoint: str) -> S3Store:
    return S3Store("bucket", "run", endpoint=endpoint, region="us-east-1", addressing="path")


@pytest.mark.slow
def test_many_threads_outlast_an_outage_together() -> None:
    with failing_server(5) as (endpoint, seen):
        store = store_at(endpoint)
        with ThreadPoolExecutor(24) as pool:
            assert all(pool.map(store.exists, (f"key-{number}" for number in range(48))))
    assert set(seen.values()) == {6}


def test_an_outage_without_end_is_an_error_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_retries, "RETRY_S", 1.0)
    with failing_server(float("inf")) as (endpoint, _):
        started = time.monotonic()
        with pytest.raises(StoreError, match="S3 failed"):
            store_at(endpoint).exists("key")
        assert 0.9 < time.monotonic() - started < 10


def test_what_will_not_pass_is_not_tried_again() -> None:
    with failing_server(float("inf"), status=403) as (endpoint, seen), pytest.raises(StoreError):
        store_at(endpoint).exists("key")
    assert set(seen.values()) == {1}


def test_pauses_spread_and_have_an_upper_end() -> None:
    first, late = ([s3_retries.pause(attempt) for _ in range(200)] for attempt in (1, 40))
    assert max(first) <= 0.2
    assert 4 < max(late) <= 8
    assert min(late) < 2
