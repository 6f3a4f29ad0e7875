"""A stand-in for a model hub: the same paths, hashes, ranges and redirects, over real HTTP on loopback."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")


class HubServer(ThreadingHTTPServer):
    """Holds repositories: (name, revision) to commit, and (name, commit) to files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[tuple[str, str], str] = {}
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.token: str | None = None
        self.cut_after: int | None = None
        """Bytes after which the next download breaks off."""
        self.wrong: set[str] = set()
        """Files of which other bytes are sent than were stated."""
        self.served: list[tuple[str, int]] = []
        """Name and first byte of each download."""
        self.tokens_at_storage: list[str | None] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repository: str, revision: str, files: dict[str, bytes]) -> str:
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[repository, revision] = self.commits[repository, commit] = commit
        self.files[repository, commit] = files
        return commit


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            self.server.tokens_at_storage.append(self.headers.get("Authorization"))
            self._send_file(path.removeprefix("/storage"))
            return
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(401, b"{}")
            return
        listing = re.fullmatch(r"/api/models/(.+)/revision/(.+)", path)
        if listing:
            self._list(listing[1], listing[2])
        elif path.endswith(LARGE):  # large files lie on another host
            other = f"http://localhost:{self.server.server_port}/storage{path}"
            self._send(302, b"", Location=other)
        else:
            self._send_file(path)

    def _list(self, repository: str, revision: str) -> None:
        commit = self.server.commits.get((repository, revision))
        if commit is None:
            self._send(404, b"{}")
            return
        siblings = [_sibling(*item) for item in self.server.files[repository, commit].items()]
        self._send(200, json.dumps({"sha": commit, "siblings": siblings}).encode())

    def _send_file(self, path: str) -> None:
        found = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path)
        data = found and self.server.files.get((found[1], found[2]), {}).get(found[3])
        if not data:
            self._send(404, b"")
            return
        name = found[3]
        start = int(re.sub(r"\D", "", self.headers.get("Range") or "0"))
        self.server.served.append((name, start))
        if name in self.server.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        body, cut = data[start:], self.server.cut_after
        self.server.cut_after = None
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = True

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Keep quiet."""


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith(LARGE):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
