"""Refuses a port that is taken, before anything slow begins.

python -m uniemo_ray.service.port 127.0.0.1 8000
"""

import socket
import sys


def check_port(host: str, port: int, *, remedy: str = "give another --port") -> None:
    """Refuse an address that is taken or not this machine's. Raises ValueError.

    Some servers, HAProxy among them, would share a port with another server of the same user, so that each
    of them gets some of the requests.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on {host} port {port} ({reason}): {remedy}") from None


def main(arguments: list[str] | None = None) -> int:
    """Check a host and a port, for `make serve`; errors are one line on standard error."""
    host, port = sys.argv[1:] if arguments is None else arguments
    try:
        check_port(host, int(port), remedy="give another PORT=number")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
