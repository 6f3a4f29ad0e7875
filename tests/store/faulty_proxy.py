"""A proxy before an S3 server that answers errors, resets connections, keeps silent, is gone or elsewhere."""

import http.client
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SILENT_S = 20.0


class FaultyProxy(ThreadingHTTPServer):
    """Hands requests on, but for those that `fault` names by number: `500`, `503`, `reset` or `silent`."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.fault: Callable[[int], str] = lambda _: ""
        self.numbers = itertools.count()
        self.faults = 0
        self.region = ""
        """Where the buckets lie: requests signed for another region are refused as AWS does; "": anywhere."""
        self.region_code = 400

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that hang up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(next(self.server.numbers))
        if fault:
            self.server.faults += 1
            self.fail(fault)
            return
        if self.server.region and f"/{self.server.region}/s3/" not in self.headers.get("Authorization", ""):
            self.refuse_region()
            return
        upstream = http.client.HTTPConnection(self.server.target.netloc, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        upstream.close()

    def fail(self, fault: str) -> None:
        self.close_connection = True
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "silent":
            threading.Event().wait(SILENT_S)
        else:
            code = {"500": "InternalError", "503": "SlowDown"}[fault]
            self.answer(int(fault), f"<Error><Code>{code}</Code><Message>for a test</Message></Error>")

    def refuse_region(self) -> None:
        """The two answers of AWS: to a signature of another region, to a bucket's name in another region."""
        region, status = self.server.region, self.server.region_code
        code = {400: "AuthorizationHeaderMalformed", 301: "PermanentRedirect"}[status]
        told = f"<Region>{region}</Region>" if status == 400 else ""
        text = f"<Error><Code>{code}</Code><Message>expecting {region}</Message>{told}</Error>"
        self.answer(status, text, {"x-amz-bucket-region": region})

    def answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response_only(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    """A running proxy; `endpoint` is where it is."""
    with FaultyProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                proxy.shutdown()
