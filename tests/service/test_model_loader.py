"""A model is loaded once for all callers that wait for it."""

import asyncio
import threading

import pytest

from uniemo_ray.service.model_loader import ModelLoader


def test_a_load_goes_on_when_its_caller_leaves():
    begun: list[str] = []
    may_end = threading.Event()

    def load(name: str) -> str:
        begun.append(name)
        assert may_end.wait(10)
        return f"model {name}"

    async def talk() -> list[str]:
        loader = ModelLoader(load)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loader.get("b"), 0.1)
        may_end.set()
        return await asyncio.gather(loader.get("b"), loader.get("b"))

    assert asyncio.run(talk()) == ["model b", "model b"]
    assert begun == ["b"]


def test_a_load_that_failed_is_tried_again():
    outcomes = iter([ValueError("bad"), None])

    def load(name: str) -> str:
        if (error := next(outcomes)) is not None:
            raise error
        return name

    async def talk() -> str:
        loader = ModelLoader(load)
        with pytest.raises(ValueError, match="bad"):
            await loader.get("b")
        return await loader.get("b")

    assert asyncio.run(talk()) == "b"
