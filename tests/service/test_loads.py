"""A model is loaded once, whoever waits for it."""

import asyncio
import threading

import pytest

from uniemo_ray.service.loads import Loads


def test_a_load_goes_on_when_its_caller_leaves():
    begun: list[str] = []
    may_end = threading.Event()

    def load(name: str) -> str:
        begun.append(name)
        assert may_end.wait(10)
        return f"model {name}"

    async def talk() -> list[str]:
        loads = Loads(load)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loads.get("b"), 0.1)
        may_end.set()
        return await asyncio.gather(loads.get("b"), loads.get("b"))

    assert asyncio.run(talk()) == ["model b", "model b"]
    assert begun == ["b"]


def test_a_load_that_failed_is_tried_again():
    outcomes = iter([ValueError("bad"), None])

    def load(name: str) -> str:
        if (error := next(outcomes)) is not None:
            raise error
        return name

    async def talk() -> str:
        loads = Loads(load)
        with pytest.raises(ValueError, match="bad"):
            await loads.get("b")
        return await loads.get("b")

    assert asyncio.run(talk()) == "b"
