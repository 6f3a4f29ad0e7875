"""The three Ray Serve deployments: thin shells around `serve.api` and `serve.models`."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client

from serve.api.app import make_api
from serve.api.guard import is_loopback
from serve.backend import DEFAULT_MODEL, Description, Look, Order, Painted, Refusal, Seen
from serve.handles import Handle, HandleBackend
from serve.jobs import JobBoard
from serve.models.illustrator import Illustrator, Ticket
from serve.models.job import run_job
from serve.models.library import Library, describe
from serve.models.understander import Understander
from serve.pool import Pool
from serve.settings import Limits
from serve.tokens import TokenFile
from uniemo_ray.store.filesystem import open_store


class Understanding:
    """Looks at images, in batches of whatever has arrived."""

    def __init__(self, library: Library, pool: Pool) -> None:
        self.library = library
        self.first = library.understander(library.load(DEFAULT_MODEL))  # a bad folder fails right here
        self.turn = asyncio.Lock()

        async def load(name: str) -> Understander:
            return library.understander(await asyncio.to_thread(library.load, name))

        # made here and not as decorators, because their numbers are settings
        self.others = serve.multiplexed(max_num_models_per_replica=pool.models_per_replica)(load)
        self.look_soon = serve.batch(max_batch_size=pool.batch_size, batch_wait_timeout_s=pool.batch_wait_s)(
            self._look_together
        )

    async def look(self, look: Look) -> Seen | Refusal:
        """One image, together with others that wait."""
        result: Seen | Refusal = await self.look_soon(look)
        return result

    async def ping(self) -> None:
        """Answers when the model is loaded."""

    async def _look_together(self, looks: list[Look]) -> list[Seen | Refusal]:
        results: dict[int, Seen | Refusal] = {}
        for name in {look.model for look in looks}:
            chosen = [i for i, look in enumerate(looks) if look.model == name]
            model = self.first if name == DEFAULT_MODEL else await self.others(name)
            async with self.turn:
                seen = await asyncio.to_thread(model, [looks[i] for i in chosen])
            results |= zip(chosen, seen, strict=True)
        return [results[i] for i in range(len(looks))]


class Generation:
    """Paints images, in batches of whatever has arrived; runs whole generations."""

    def __init__(self, library: Library, pool: Pool, limits: Limits, store: str) -> None:
        self.library, self.limits = library, limits
        self.board = JobBoard(open_store(store), ttl_s=limits.result_ttl_s)
        self.first = library.illustrator(library.load(DEFAULT_MODEL))
        self.turn = asyncio.Lock()

        async def load(name: str) -> Illustrator:
            return library.illustrator(await asyncio.to_thread(library.load, name))

        self.others = serve.multiplexed(max_num_models_per_replica=pool.models_per_replica)(load)
        self.paint_soon = serve.batch(max_batch_size=pool.batch_size, batch_wait_timeout_s=pool.batch_wait_s)(
            self._paint_together
        )

    async def paint(self, order: Order) -> Painted | Refusal:
        """The first image of an order. When the caller goes away, the painter stops."""
        tickets = (await self._model(order.model)).tickets(order)
        if isinstance(tickets, Refusal):
            return tickets
        try:
            return await self._paint(tickets[0])
        finally:
            tickets[0].is_cancelled = True

    async def run(self, job_id: str, order: Order) -> None:
        """A whole generation, reported on the job board."""
        tickets = (await self._model(order.model)).tickets(order)
        timeout_s = self.limits.generate_timeout_s
        await run_job(job_id, tickets, paint=self._paint, board=self.board, timeout_s=timeout_s)

    async def describe(self, model: str) -> Description:
        """The model behind a name."""
        return describe(await self._model(model))

    async def ping(self) -> None:
        """Answers when the model is loaded."""

    async def _model(self, name: str) -> Illustrator:
        if name == DEFAULT_MODEL:
            return self.first
        model: Illustrator = await self.others(name)
        return model

    async def _paint(self, ticket: Ticket) -> Painted | Refusal:
        result: Painted | Refusal = await self.paint_soon(ticket)
        return result

    async def _paint_together(self, tickets: list[Ticket]) -> list[Painted | Refusal]:
        results: dict[int, Painted | Refusal] = {}
        for name in {ticket.model for ticket in tickets}:
            chosen = [i for i, ticket in enumerate(tickets) if ticket.model == name]
            model = await self._model(name)
            async with self.turn:
                painted = await asyncio.to_thread(model, [tickets[i] for i in chosen])
            results |= zip(chosen, painted, strict=True)
        return [results[i] for i in range(len(tickets))]


@serve.ingress()
class Endpoint:
    """The HTTP interface; holds no model, so that nothing a picture does can end it."""

    def __init__(
        self,
        understanding: Handle,
        generation: Handle,
        *,
        models: tuple[str, ...],
        limits: Limits,
        store: str,
        tokens: str | None,
    ) -> None:
        _log_requests()
        self.tokens = check_exposure(tokens)
        self.backend = HandleBackend(understanding, generation, limits=limits)
        self.board = JobBoard(open_store(store), ttl_s=limits.result_ttl_s)
        self.models, self.limits = models, limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        return make_api(
            self.backend, board=self.board, limits=self.limits, tokens=self.tokens, models=self.models
        )


def _log_requests() -> None:
    """Let our own lines reach the replica's log, and no library's."""
    ours = logging.getLogger("serve")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())


def check_exposure(tokens: str | None) -> TokenFile | None:
    """The token file, if there is one.

    Raises:
        ValueError: there is none, and Serve listens to more than this machine.
    """
    if tokens is not None:
        return TokenFile(Path(tokens))
    host = _http_host()
    if host is not None and not is_loopback(host):
        raise ValueError(
            f"refusing to serve on {host} without tokens: "
            "set http_options.host to 127.0.0.1, or tokens to a file"
        )
    return None


def _http_host() -> str | None:
    """Where Serve's proxies listen; None without a Serve controller, as in tests."""
    client: Any = _get_global_client(raise_if_no_controller_running=False)  # Serve has no public way to ask
    return None if client is None else str(client.http_config.host)
