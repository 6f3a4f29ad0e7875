"""A cached value: its age, its single refresh and its errors."""

import asyncio

import pytest

from uniemo_ray.service.cached_value import CachedValue


class Source:
    """Returns 1, 2, 3 and so on, as soon as `may_answer` is set."""

    def __init__(self) -> None:
        self.now, self.asked, self.fails = 0.0, 0, False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.cached = CachedValue(self.ask, fresh_s=5, patience_s=0.01, clock=lambda: self.now)

    async def ask(self) -> int:
        self.asked += 1
        answer = self.asked
        await self.may_answer.wait()
        if self.fails:
            raise ValueError("broken")
        return answer


def test_an_old_value_is_fetched_again():
    async def talk() -> list[int]:
        source = Source()
        answers = []
        for source.now in (0, 4, 6, 7, 12):
            answers.append(await source.cached.get())
        return answers

    assert asyncio.run(talk()) == [1, 1, 2, 2, 3]


def test_callers_share_one_fetch_although_one_is_cancelled():
    async def talk() -> None:
        source = Source()
        source.may_answer.clear()
        waiting = [asyncio.create_task(source.cached.get()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        source.may_answer.set()
        assert await asyncio.gather(*waiting[1:]) == [1] * 19
        assert source.asked == 1

    asyncio.run(talk())


def test_an_old_value_is_used_while_a_new_one_takes_too_long_or_fails():
    async def talk() -> None:
        source = Source()
        assert await source.cached.get() == 1
        source.now = 6
        source.may_answer.clear()
        assert await source.cached.get() == 1  # the new one takes too long
        source.fails = True
        source.may_answer.set()
        assert await source.cached.get() == 1
        source.fails = False
        assert await source.cached.get() == 3
        assert source.asked == 3

    asyncio.run(talk())


def test_without_any_value_the_error_is_raised():
    async def talk() -> None:
        source = Source()
        source.fails = True
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await source.cached.get()
        assert source.asked == 2

    asyncio.run(talk())
