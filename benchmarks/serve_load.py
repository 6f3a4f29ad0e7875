"""Callers of a served model: many at once, or as many a second as asked for."""

import asyncio
import io
import statistics
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from PIL import Image

PAUSE_S = 0.2
"""Pause of a caller that was refused."""
Ask = Callable[[aiohttp.ClientSession], Awaitable[int]]


@dataclass
class Tally:
    """What callers got."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    """0: no answer at all."""
    times: list[float] = field(default_factory=list)
    """Seconds of each successful request."""
    finished_at: list[float] = field(default_factory=list)
    """When good answers came, on the clock of `time.monotonic`."""

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds

    def percentile(self, share: float) -> float:
        """A percentile of the seconds of successful requests."""
        return percentile(self.times, share)

    def describe(self) -> str:
        """Statuses, in order."""
        return ", ".join(
            f"{count} x {status or 'no answer'}" for status, count in sorted(self.statuses.items())
        )


def percentile(times: list[float], share: float) -> float:
    """The smallest time that `share` of all do not exceed."""
    return sorted(times)[max(0, round(share * len(times)) - 1)] if times else float("nan")


def median(times: list[float]) -> float:
    """p50."""
    return statistics.median(times)


def photo(seed: int) -> bytes:
    """A 640 x 480 JPEG as large as a photograph: coarse noise, smoothed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def understand_call(url: str, photos: list[bytes]) -> Ask:
    """Asks to understand one picture after the other."""
    turn = iter(range(10**12))

    async def ask(session: aiohttp.ClientSession) -> int:
        body = photos[next(turn) % len(photos)]
        async with session.post(
            f"{url}/v1/understand", data=body, headers={"content-type": "image/jpeg"}
        ) as got:
            await got.read()
            return got.status

    return ask


def generate_call(url: str) -> Ask:
    """Asks for one picture as a file."""

    async def ask(session: aiohttp.ClientSession) -> int:
        headers = {"accept": "image/png"}
        async with session.post(f"{url}/v1/generate", json={"emotion": "awe"}, headers=headers) as got:
            await got.read()
            return got.status

    return ask


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections without a bound of their own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(300)) as opened:
        yield opened


async def _once(ask: Ask, opened: aiohttp.ClientSession, tally: Tally) -> int:
    began, status = time.perf_counter(), 0
    with suppress(aiohttp.ClientError, TimeoutError):
        status = await ask(opened)
    tally.statuses[status] += 1
    if status == 200:
        tally.times.append(time.perf_counter() - began)
        tally.finished_at.append(time.monotonic())
    return status


async def together(ask: Ask, *, callers: int, seconds: float) -> Tally:
    """Callers that ask again as soon as they are answered."""
    tally, began = Tally(), time.perf_counter()

    async def call(opened: aiohttp.ClientSession) -> None:
        while time.perf_counter() < began + seconds:
            if await _once(ask, opened, tally) != 200:
                await asyncio.sleep(PAUSE_S)

    async with session() as opened:
        await asyncio.gather(*(call(opened) for _ in range(callers)))
    tally.seconds = time.perf_counter() - began
    return tally


async def at_rate(ask: Ask, *, per_s: float, seconds: float) -> Tally:
    """Requests that come however busy the service is; `seconds` of the tally is until the last answer."""
    tally, began = Tally(), time.perf_counter()
    async with session() as opened:
        waiting = []
        for i in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, began + i / per_s - time.perf_counter()))
            waiting.append(asyncio.create_task(_once(ask, opened, tally)))
        await asyncio.gather(*waiting)
    tally.seconds = time.perf_counter() - began
    return tally


@contextmanager
def loaded(ask: Ask, *, callers: int) -> Iterator[Tally]:
    """Callers in a thread of their own, as long as the block runs."""
    tally, is_over = Tally(), threading.Event()

    async def call(opened: aiohttp.ClientSession) -> None:
        while not is_over.is_set():
            if await _once(ask, opened, tally) != 200:
                await asyncio.sleep(PAUSE_S)

    async def run() -> None:
        async with session() as opened:
            await asyncio.gather(*(call(opened) for _ in range(callers)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield tally
    finally:
        is_over.set()
        thread.join()
