"""The whole service in one process, without Ray: for a laptop, for work on the page, for tests.

python -m uniemo_ray.service.local                     the small model that is shipped
python -m uniemo_ray.service.local runs/demo/model
"""

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import uvicorn

from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.guard import is_loopback
from uniemo_ray.service.backend import DEFAULT_MODEL, Description, Look, Order, Painted, Refusal, Seen
from uniemo_ray.service.generations import JobBoard
from uniemo_ray.service.running import Running
from uniemo_ray.service.settings import STORE, Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.illustrator import Illustrator, Ticket
from uniemo_ray.service.workers.job import run_job
from uniemo_ray.service.workers.library import Library, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.filesystem import open_store

A = TypeVar("A")
R = TypeVar("R")


class LocalBackend:
    """Models in this process, one piece of work at a time."""

    def __init__(
        self, understander: Understander, illustrator: Illustrator, *, board: JobBoard, limits: Limits
    ) -> None:
        self.understander, self.illustrator = understander, illustrator
        self.board, self.limits = board, limits
        self.running = Running(board)
        self.turn = asyncio.Lock()

    async def is_ready(self) -> bool:
        """Loaded models are."""
        return True

    async def describe(self, model: str) -> Description:
        """There is one model."""
        return describe(self.illustrator)

    async def understand(self, looks: Sequence[Look]) -> list[Seen | Refusal]:
        """In a thread, so that other requests are answered meanwhile."""
        return await self._alone(self.understander.understand, looks)

    async def generate(self, order: Order) -> list[Painted] | Refusal:
        """In a thread, one image after the other."""
        tickets = self.illustrator.tickets(order)
        if isinstance(tickets, Refusal):
            return tickets
        images = []
        try:
            for ticket in tickets:
                image = await self._paint(ticket)
                if isinstance(image, Refusal):
                    return image
                images.append(image)
        finally:
            for ticket in tickets:
                ticket.is_cancelled = True
        return images

    async def start(self, job_id: str, order: Order) -> "asyncio.Task[None]":
        """As a task of this process."""
        work = run_job(
            job_id,
            self.illustrator.tickets(order),
            paint=self._paint,
            board=self.board,
            timeout_s=self.limits.generate_timeout_s,
        )
        return self.running.begin(job_id, work)

    async def close(self) -> None:
        """Whoever stops this process does not want to wait."""
        await self.running.finish(within_s=0)

    async def _paint(self, ticket: Ticket) -> Painted | Refusal:
        return (await self._alone(self.illustrator, [ticket]))[0]

    async def _alone(self, work: Callable[[A], R], argument: A) -> R:
        """In a thread, one after the other: the next one waits for the end also when a caller leaves."""
        async with self.turn:
            done = asyncio.ensure_future(asyncio.to_thread(work, argument))
            try:
                return await asyncio.shield(done)
            finally:
                await asyncio.wait([done])


def main(arguments: list[str] | None = None) -> int:
    """Entry point; errors are one line on standard error."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.tokens is None and not is_loopback(options.host):
            raise ValueError(f"refusing to bind to {options.host} without tokens: give --tokens FILE")
        tokens = None if options.tokens is None else TokenFile(options.tokens)
        _check_port(options.host, options.port)
        limits = Limits()
        library = Library(models={DEFAULT_MODEL: options.model})
        model = library.load(DEFAULT_MODEL)
        board = JobBoard(open_store(options.store), ttl_s=limits.result_ttl_s)
        backend = LocalBackend(
            library.understander(model), library.illustrator(model), board=board, limits=limits
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    app = make_api(backend, board=board, limits=limits, tokens=tokens)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, server_header=False)
    return 0


def _check_port(host: str, port: int) -> None:
    """Refuse an address that is taken or not this machine's, before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on {host} port {port} ({reason}): give another --port") from None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uniemo serve", description="Serve a model without Ray.")
    parser.add_argument("model", nargs="?", default=SHIPPED, help="model folder, local or s3://")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tokens", type=Path, help="token file; needed beyond loopback")
    parser.add_argument("--store", default=STORE, help="where generations are kept, local or s3://")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
