"""A driver that is killed again and again at moments nobody chose, on disk and on S3."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import (
    SHARDS,
    TIMEOUT_S,
    assert_sound,
    begun_shards,
    driver,
    entries,
    image_files,
    submit,
)
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import ShardEntry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
KILLS, ACTORS = 6, 2


def test_the_driver_is_killed_at_random_moments(
    environment: dict[str, str], undisturbed: dict[str, str], uri: str, tmp_path: Path
) -> None:
    """Each time some shards and a while later; of the work no more is lost than a shard of each actor."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    moments, journal = random.Random(seed), tmp_path / "journal"
    before: dict[str, ShardEntry] = {}
    kills = 0
    while kills < KILLS:
        begun = len(begun_shards(journal)) + moments.randrange(3)
        code = killed(uri, environment, journal, begun=begun, after_s=moments.uniform(0.0, 1.0))
        store = open_store(uri)
        after = entries(store) if store.list("artefacts") else {}
        assert {name: after[name] for name in before} == before, "a committed shard was made again"
        before = after
        if code == 0:
            break  # it was faster than the moments: what was lost until then counts
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    code, output = submit(uri, environment, journal=str(journal))
    assert code == 0, output
    assert_sound(open_store(uri))
    assert image_files(open_store(uri)) == undisturbed
    assert len(begun_shards(journal)) - SHARDS <= kills * ACTORS, "more was lost than a shard of each actor"


def killed(uri: str, environment: dict[str, str], journal: Path, *, begun: int, after_s: float) -> int:
    """The return code of a driver that is killed a while after its actors have begun so many shards."""
    with driver(uri, environment, delay_s=1.0, actors=ACTORS, journal=str(journal)) as process:
        deadline = time.monotonic() + TIMEOUT_S
        assert process.stdout is not None
        while "locked" not in process.stdout.readline():
            assert process.poll() is None
        while len(begun_shards(journal)) < begun and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(after_s)
        process.kill()
        return process.wait()
