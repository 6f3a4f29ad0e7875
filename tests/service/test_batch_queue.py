"""Which work runs next, and what shares a batch."""

import asyncio
from collections.abc import Sequence

import pytest

from uniemo_ray.service.batch_queue import OVERTAKEN_S, BatchQueue


class Painter:
    """Notes its batches. An item is (kind, work); the first batch waits until `begin` is set."""

    def __init__(self, **options: float) -> None:
        self.now, self.batches = 0.0, []
        self.begin = asyncio.Event()
        self.queue = BatchQueue(
            self.paint,
            batch_size=2,
            group=lambda item: item[0],
            work=lambda item: item[1],
            clock=lambda: self.now,
            **options,
        )

    async def paint(self, items: Sequence[tuple[str, int]]) -> list[str]:
        self.batches.append("".join(kind for kind, _ in items))
        await self.begin.wait()
        if any(kind == "x" for kind, _ in items):
            raise ValueError("out of memory")
        return [f"{kind}{work}" for kind, work in items]

    def submit(self, *items: tuple[str, int]) -> "list[asyncio.Task[str]]":
        return [asyncio.create_task(self.queue.submit(item)) for item in items]


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def test_short_work_goes_first_and_equal_settings_share_batches() -> None:
    async def scenario() -> None:
        painter = Painter()
        opener = painter.submit(("o", 9))
        await settle()
        others = painter.submit(("b", 50), ("s", 1), ("m", 5), ("s", 1), ("s", 1))
        await settle()
        painter.begin.set()
        assert await asyncio.gather(*opener, *others) == ["o9", "b50", "s1", "m5", "s1", "s1"]
        assert painter.batches == ["o", "ss", "s", "m", "b"]

    asyncio.run(scenario())


def test_long_work_is_overtaken_for_a_limited_time() -> None:
    async def scenario() -> None:
        painter = Painter()
        tasks = painter.submit(("o", 9))
        await settle()
        tasks += painter.submit(("b", 50))
        await settle()
        painter.now = OVERTAKEN_S
        tasks += painter.submit(("s", 1))
        await settle()
        painter.begin.set()
        await asyncio.gather(*tasks)
        assert painter.batches == ["o", "b", "s"]

    asyncio.run(scenario())


def test_a_batch_that_fails_takes_no_other_along() -> None:
    async def scenario() -> None:
        painter = Painter()
        painter.begin.set()
        bad, good, worse = painter.submit(("x", 2), ("s", 1), ("x", 2))
        assert await good == "s1"
        for task in (bad, worse):
            with pytest.raises(ValueError, match="out of memory"):
                await task
        assert await painter.queue.submit(("s", 3)) == "s3"  # the queue lives on

    asyncio.run(scenario())


def test_nobody_is_served_who_has_left() -> None:
    async def scenario() -> None:
        painter = Painter()
        opener = painter.submit(("o", 9))
        await settle()
        first, second = painter.submit(("s", 1), ("s", 2))
        await settle()
        first.cancel()
        painter.begin.set()
        assert await second == "s2"
        assert await opener[0] == "o9"
        assert painter.batches == ["o", "s"]
        lonely = painter.submit(("s", 1))[0]
        await asyncio.sleep(0)
        lonely.cancel()
        await settle()
        assert painter.batches == ["o", "s"]

    asyncio.run(scenario())


def test_a_batch_waits_until_it_is_full_or_its_oldest_item_has_waited() -> None:
    async def scenario() -> None:
        painter = Painter(wait_s=0.05)
        painter.begin.set()
        tasks = painter.submit(("s", 1))
        await asyncio.sleep(0.01)
        tasks += painter.submit(("s", 1))
        await asyncio.gather(*tasks)
        await asyncio.gather(*painter.submit(("s", 1), ("s", 1), ("s", 1)))
        assert painter.batches == ["ss", "ss", "s"]

    asyncio.run(scenario())
