"""What reaches a driver's log: our lines and every warning, not what Ray's libraries say of each data set."""

import logging
import re
from collections.abc import Iterator

import pytest

from uniemo_ray.distributed.logs import FORWARDING, show_rank
from uniemo_ray.distributed.submission import is_news

RESTART = (
    "core_worker.cc:2465: Actor with class name: 'PreemptionWatcher' and ID: '8fa87b' has constructor "
    "arguments in the object store and max_restarts > 0. If the arguments in the object store go out of "
    "scope or are lost, the actor restart will fail."
)


@pytest.fixture
def _own_root_logger() -> Iterator[None]:
    """The root logger is left as it was."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def log_everywhere() -> None:
    for name in (
        "uniemo_ray.training.records",
        "/site-packages/ray/train/context.py",
        "uniemo_ray_of_others",
    ):
        logging.getLogger(name).info("progress of %s", name)
        logging.getLogger(name).warning("trouble of %s", name)


@pytest.mark.usefixtures("_own_root_logger")
def test_rank_0_shows_our_lines_and_every_warning(capsys: pytest.CaptureFixture[str]) -> None:
    show_rank(0)
    show_rank(0)  # a second stage in the same process
    log_everywhere()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().err.splitlines()] == [
        "progress of uniemo_ray.training.records",
        "trouble of uniemo_ray.training.records",
        "trouble of /site-packages/ray/train/context.py",
        "trouble of uniemo_ray_of_others",
    ]


@pytest.mark.usefixtures("_own_root_logger")
def test_other_ranks_show_warnings_alone_and_say_who_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_rank(13)
    log_everywhere()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"\d\d:\d\d:\d\d rank 13: trouble of ", line) for line in lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2026-11-29 21:00:38,160\tINFO job_manager.py:581 -- Runtime env is setting up.", False),
        ("Running entrypoint for job demo-1: python jobs/feedback_loop.py --config demo", False),
        (f"[2026-11-29 20:59:59,426 E 3770 3770] {RESTART}", False),
        ("[mutex.cc : 452] RAW: Lock blocking 0x55bdef1e22e0   @ 0x7fccf9a2b1a2 0x7fccf8afb23c", False),
        ("[2026-11-29 20:59:59,426 E 3770 3770] core_worker.cc:2465: Failed to register actor.", True),
        ("2026-11-29 21:00:38,160\tERROR job_manager.py:590 -- Failed to start supervisor actor", True),
        ("21:00:48 [1/26] ingest ... started", True),
        ("Traceback (most recent call last):", True),
        ("", True),
    ],
)
def test_what_a_jobs_log_adds_to_the_job(line: str, expected: bool) -> None:
    assert is_news(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (RESTART, True),
        ("✔️  Dataset train_0356C8_0 execution finished in 0.14 seconds", True),
        ("⚠️  Dataset train_0356C8_0 execution failed", False),
        ("[2026-11-29 20:59:59,426 E 3770 3770] core_worker.cc:99: plasma store is gone", False),
        ("21:02:24 understanding-1 [####....] step 20/44 epoch 1/2 78 images/s ETA 0:19 loss 1.299", False),
    ],
)
def test_what_workers_write_for_nobody(line: str, expected: bool) -> None:
    assert bool(re.search(FORWARDING["RAY_DEDUP_LOGS_SKIP_REGEX"], line)) == expected
