"""What is seen of a run while it runs."""

import logging
import re
import time

import pytest

from uniemo_ray.distributed.shards.progress import CostMeter, Progress, WorkerMetrics, shown
from uniemo_ray.distributed.shards.report import ShardReport
from uniemo_ray.pools import Prices


def progress() -> Progress:
    return Progress(
        label="images", rows=100, shards=10, prices=Prices(default=1.8), rows_before=20, shards_before=2
    )


def test_a_line_says_everything() -> None:
    view = progress()
    assert (
        view.line(0.0, nodes=0)
        == "images: 20/100, 0.0/s, ETA unknown, 0 failures, 2/10 shards, 0 nodes, cost 0.00"
    )
    for _ in range(2):
        view.add(ShardReport("a", rows=10, failed=1, groups='{"fear": 4, "awe": 5}'))
    view.cost = 3.6
    expected = (
        "images: 40/100, 0.2/s, ETA 0:05:00, 2 failures, 4/10 shards, 1 node, cost 3.60; awe 10, fear 8"
    )
    assert view.line(100.0, nodes=1) == expected


def test_what_is_not_known_is_left_out() -> None:
    view = Progress(label="features", rows=None, shards=1)
    view.add(ShardReport("a", rows=10))
    assert view.line(1.0, nodes=3) == "features: 10, 10.0/s, ETA 0:00:00, 0 failures, 1/1 shards, 3 nodes"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_lines_come_while_the_driver_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    view = progress()
    with shown(view, every_s=0.2):
        time.sleep(1.0)
        view.add(ShardReport("a", rows=10))
    lines = [record.message for record in caplog.records if record.message.startswith("images: ")]
    assert len(lines) >= 3
    assert "20/100" in lines[0]
    assert "30/100" in lines[-1]
    assert re.search(r"cost \d+\.\d\d$", lines[-1])
    following = progress()
    with shown(following, every_s=0.2):
        time.sleep(0.5)
    assert following.cost >= view.cost + 0.5 * 1.8 / 3600


def test_machines_cost_money_between_two_steps_too() -> None:
    meter = CostMeter(since=100.0)
    assert meter.read(720, now=110.0) == 2
    assert meter.read(1080, now=120.0) == 5
    assert meter.read(1080, now=60.0) == 5, "a clock that was put back"


@pytest.mark.parametrize(("rows", "failed", "counted"), [(5, 2, [3]), (0, 4, []), (3, 3, [])])
def test_a_shard_that_holds_no_result_counts_no_row(
    monkeypatch: pytest.MonkeyPatch, rows: int, failed: int, counted: list[int]
) -> None:
    """Ray's counters take no number below one; samples are rows only where they are usable."""
    meter = WorkerMetrics("ingest")
    found: list[int] = []
    original = meter.rows.inc
    monkeypatch.setattr(meter.rows, "inc", lambda value, tags: (original(value, tags), found.append(value)))
    meter.count(ShardReport("a", rows=rows, failed=failed))
    assert found == counted


def test_rows_of_a_label_of_any_script_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's tags are ASCII: with others the task that made a shard would fail after committing it."""
    meter = WorkerMetrics("ingest")
    tags: list[str] = []
    original = meter.rows.inc
    monkeypatch.setattr(
        meter.rows, "inc", lambda value, tags_: (original(value, tags_), tags.append(tags_["emotion"]))
    )
    meter.count(ShardReport("a", rows=3, groups='{"très_triste": 2, "calm": 1}'))
    assert tags == [r"tr\xe8s_triste", "calm"]
