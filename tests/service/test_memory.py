"""One memory budget for bodies in flight and decoded images; it is returned in every case."""

import asyncio
import os
import struct
import subprocess
import sys
import zlib

import pytest
from pydantic import ValidationError

from tests.service.fake import WHITE, assert_problem, client_of, make_fake
from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.service.api.files import inspect
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.settings import Limits

LIMITS = Limits(body_bytes=50_000, pixels=10_000)


def small_budget() -> MemoryBudget:
    return MemoryBudget(300_000, for_decoding=100_000)


@pytest.mark.parametrize("has_length", [True, False])
def test_bodies_beyond_the_budget_get_503_and_the_next_ones_go_on(generation_store, has_length):
    memory = small_budget()
    app, _ = make_fake(generation_store, limits=LIMITS, memory=memory)
    body = bytes(40_000)
    with client_of(app) as client:
        assert memory.take_for_body(150_000)  # other requests hold it
        content = body if has_length else iter([body[:20_000], body[20_000:]])
        refused = client.post("/v1/understand", content=content)
        assert_problem(refused, 503, "no memory left")
        assert int(refused.headers["retry-after"]) >= 1
        assert memory.used == 150_000
        memory.give_back_body(150_000)
        assert client.post("/v1/understand", content=WHITE).status_code == 200
        for wrong in (body, b"", bytes(60_000)):
            assert client.post("/v1/understand", content=wrong).status_code in (413, 422)
        assert memory.used == 0


def test_decoding_waits_in_order_and_bodies_leave_it_room():
    async def run() -> list[str]:
        memory, order = small_budget(), []
        assert memory.take_for_body(200_000)
        assert not memory.take_for_body(1)

        async def decode(name: str, size: int) -> None:
            async with memory.decoding(size):
                order.append(name)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(decode(name, 90_000)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[2].cancel()  # a caller that leaves while it waits
        await asyncio.gather(*tasks, return_exceptions=True)
        memory.give_back_body(200_000)
        assert memory.used == 0
        return order

    assert asyncio.run(run()) == ["a", "b", "d"]


def test_a_caller_that_leaves_returns_its_memory(generation_store):
    memory = small_budget()
    app, _ = make_fake(generation_store, limits=LIMITS, memory=memory)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/understand",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-length", b"40000")],
        "client": ("127.0.0.1", 5),
    }
    held = []

    async def receive() -> dict:
        held.append(memory.used)
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        raise AssertionError(message)

    asyncio.run(app(scope, receive, send))
    assert held == [80_000]
    assert memory.used == 0


def test_a_lack_of_memory_is_a_clean_answer(served, monkeypatch):
    client, backend = served

    async def fail(images):
        raise MemoryError

    monkeypatch.setattr(backend, "understand", fail)
    response = client.post("/v1/understand", content=WHITE)
    assert_problem(response, 503, "not enough memory")
    assert response.headers["retry-after"]


def test_a_budget_that_holds_no_request_is_refused():
    with pytest.raises(ValidationError, match="set it to at least 1712"):
        Limits(memory_mb=1000)


def tiled_tiff(side: int, tile: int) -> bytes:
    """A grey TIFF in one tile."""
    data = zlib.compress(bytes(tile * tile), 9)
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, tile), (323, tile), (324, 14 + 12 * 10), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_a_small_picture_in_a_large_tile_costs_the_tile():
    decode_rgb(tiled_tiff(64, 96), 10_000)
    with pytest.raises(ImageError, match="a tile of 1000000 pixels"):
        decode_rgb(tiled_tiff(64, 1000), 10_000)
    with pytest.raises(ProblemError, match="more than 10000 pixels"):
        inspect(tiled_tiff(64, 1000), media_type="", limits=LIMITS, field="")


MEASURE = """
import os, random, sys
os.environ["OMP_NUM_THREADS"] = "1"
from hypothesis import example, given, settings, strategies as st, HealthCheck
from tests.service.picture_headers import FORMATS, make
from uniemo_ray.data.images import ImageError, decode_rgb, to_square
from uniemo_ray.service.api.files import inspect
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.settings import Limits

limits = Limits(pixels=1_000_000)

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

def look(data):
    try:
        cost = inspect(data, media_type="", limits=limits, field="image").decode_bytes
        to_square(decode_rgb(data, limits.pixels), 64)
    except (ProblemError, ImageError):
        return 0
    return cost

for kind in FORMATS:
    look(make(kind, 8, 8, 8, 8))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()

@settings(max_examples=int(sys.argv[1]), database=None, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORMATS), *[st.sampled_from((1, 3, 10, 99, 1000, 9000, 70000))] * 4)
@example("TIFF tile", 99, 99, 12000, 12000)
@example("TIFF strip", 99, 99, 99, 1_000_000)
@example("PNG", 70000, 70000, 1, 1)
@example("GIF", 10, 10, 65000, 65000)
def check(kind, width, height, inner_width, inner_height):
    look(make(kind, width, height, inner_width, inner_height))

check()
print(peak() - before)
"""


def test_no_header_costs_more_than_the_pixels_that_are_allowed():
    """Over formats and sides: a + b x pixels, with the b of the budget."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, os.environ.get("UNIEMO_TEST_EXAMPLES", "150")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    a, b = 40_000_000, 32
    assert int(done.stdout) <= a + b * 1_000_000, done.stdout
