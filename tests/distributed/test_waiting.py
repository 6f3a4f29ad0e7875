"""A step that has no machine says what it waits for, and since when."""

import logging
from typing import Any

import pytest
import ray

from uniemo_ray.distributed.shards.progress import Progress, shown
from uniemo_ray.distributed.waiting import Waiting, waiting_shown
from uniemo_ray.pools import Pool

POOL = Pool(name="generate", labels={"uniemo/pool": "generate"}, min_actors=2)


def node(pool: str = "generate", **resources: float) -> dict[str, Any]:
    return {"Labels": {"uniemo/pool": pool}, "Resources": resources}


def test_a_line_names_the_pool_and_the_time() -> None:
    waiting = Waiting("generate-1", POOL)
    assert (
        waiting.line([node("data", CPU=8)], now=100.0)
        == "generate-1: waits for a machine of pool generate (uniemo/pool=generate) since 0 s"
    )
    assert waiting.line([], now=130.0).endswith("since 30 s")
    assert waiting.line([], now=220.0).endswith("since 2 min")
    assert "with room for 1 of 2 processes since 2 min" in waiting.line([node(CPU=1)], now=230.0)
    assert waiting.line([node(CPU=1), node(CPU=1)], now=240.0) is None
    assert waiting.line([], now=300.0).endswith("since 0 s")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_it_is_logged_while_work_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with waiting_shown("scorers", POOL, every_s=0.1):
        ray.get(ray.put(0))
    assert "scorers: waits for a machine of pool generate" in caplog.text
    caplog.clear()
    with shown(Progress(label="generate-1", rows=1, shards=1), POOL, every_s=0.1):
        ray.wait([ray.put(0)], timeout=0.1)
        import time

        time.sleep(0.4)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("generate-1: waits for a machine of pool generate")
    assert lines[-1].startswith("generate-1: 0/1")
    caplog.clear()
    with waiting_shown("scorers", Pool(), every_s=0.1):
        pass
    assert caplog.text == ""
