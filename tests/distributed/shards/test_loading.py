"""How an actor's process loads, and how it ends."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from uniemo_ray.distributed.shards import health, loading
from uniemo_ray.distributed.shards.health import Health, NoActorError
from uniemo_ray.distributed.shards.loading import LOADS, Loading
from uniemo_ray.store.filesystem import open_store

LOST = RuntimeError("CUDA error: uncorrectable ECC error encountered")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(loading.time, "sleep", found.append)
    return found


@pytest.fixture
def pool(tmp_path: Path, pauses: list[float]) -> Health:
    return Health(open_store(str(tmp_path)), "p")


class Model:
    """Loads at the n-th try."""

    def __init__(self, at: int, error: Exception) -> None:
        self.tries, self.at, self.error = 0, at, error

    def __call__(self) -> int:
        self.tries += 1
        if self.tries < self.at:
            raise self.error
        return self.tries


def kinds(pool: Health) -> list[str]:
    return [note.kind for note in sorted(pool.notes(), key=lambda note: (note.noted_ms, note.kind))]


def exit_code(work: Callable[[], object]) -> int:
    """What a process ends with, which prints nothing else."""
    pid = os.fork()
    if pid == 0:
        ray.is_initialized = lambda: False  # a fork cannot talk to a cluster that another test has started
        try:
            work()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_load_is_tried_again_after_growing_pauses(pool: Health, pauses: list[float]) -> None:
    assert Loading(pool).load(Model(LOADS, OSError("S3 is slow"))) == LOADS
    assert pauses == [2.0, 10.0]
    assert kinds(pool) == ["begun"]


def test_a_first_process_that_cannot_load_ends_its_actor(pool: Health, pauses: list[float]) -> None:
    model = Model(99, OSError("full"))
    with pytest.raises(OSError, match="full"):
        Loading(pool).load(model)
    assert model.tries == LOADS
    assert kinds(pool) == ["begun", "gone"]


def test_pauses_are_longer_where_others_have_failed(
    pool: Health, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        monkeypatch.setattr(health, "now_ms", lambda number=number: 10 * number + 5)
        pool.note("gone", began_ms=10 * number)
    monkeypatch.setattr(loading, "here", lambda: ("local", "another"))
    Loading(pool).load(Model(LOADS, OSError("full")))
    assert pauses == [8.0, 40.0]


def test_a_lost_accelerator_is_not_tried_again(pool: Health, pauses: list[float]) -> None:
    model = Model(99, LOST)
    with pytest.raises(RuntimeError, match="ECC"):
        Loading(pool).load(model)
    assert (model.tries, pauses) == (1, [])


def test_a_wrong_model_is_no_failure_of_the_node(pool: Health) -> None:
    model = Model(99, ValueError("no such model"))
    with pytest.raises(ValueError, match="no such model"):
        Loading(pool).load(model)
    assert model.tries == 1
    assert kinds(pool) == ["begun"]


def instead_of(cause: Exception) -> ValueError:
    """What a reader of models makes of an error."""
    try:
        try:
            raise cause
        except Exception:
            raise ValueError("cannot be loaded: copy the folder again") from None
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("cause", "tries"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), LOADS),
        (TimeoutError("timed out"), LOADS),
        (FileNotFoundError(errno.ENOENT, "no such file"), 1),
        (OSError("no file named config.json"), 1),
    ],
)
def test_a_model_that_cannot_be_read_for_a_moment_is_not_wrong(
    pool: Health, cause: Exception, tries: int
) -> None:
    model = Model(99, instead_of(cause))
    with pytest.raises(ValueError, match="copy the folder again"):
        Loading(pool).load(model)
    assert model.tries == tries
    assert kinds(pool) == ["begun"]


def test_a_lost_accelerator_behind_another_error_is_found(pool: Health) -> None:
    assert exit_code(lambda: Loading(pool).load(Model(1, LOST))) == 7
    assert exit_code(lambda: Loading(pool).load(Model(99, instead_of(LOST)))) == 1
    assert kinds(pool).count("failed") == 1


def test_an_actor_that_has_run_starts_three_times_and_is_given_up(
    pool: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"p-3"}  # waits for a node
    monkeypatch.setattr(health, "_listed", lambda: listed)
    Loading(pool).load(Model(1, LOST))
    for _ in range(2):
        assert exit_code(lambda: Loading(pool).load(Model(99, LOST))) == 1
    with pytest.raises(RuntimeError, match="ECC"):
        Loading(pool).load(Model(99, LOST))
    assert sum(note.kind == "gone" for note in pool.notes()) == 1
    good = Model(1, LOST)
    with pytest.raises(
        NoActorError, match=r"no actor of the pool can start: .*node local\): CUDA error: unc"
    ):
        Loading(pool).load(good)
    monkeypatch.setattr(health, "here", lambda: ("local", "p-2"))
    pool.note("begun", began_ms=0)
    listed.add("p-2")
    with pytest.raises(RuntimeError, match="given up") as raised:
        Loading(pool).load(good)
    assert not isinstance(raised.value, NoActorError)
    assert good.tries == 0


def test_a_process_that_made_nothing_is_a_failure(pool: Health) -> None:
    for made in (1, 0, 0, 5, 0):
        assert exit_code(lambda made=made: Loading(pool).end_process(LOST, made=made)) == 1
    assert sorted(kinds(pool)) == ["failed", "failed", "gone"]


def test_a_process_ends_though_its_failure_cannot_be_noted(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("no folder")
    broken = Health(open_store(str(tmp_path)), "p")
    assert exit_code(lambda: Loading(broken).end_process(LOST, made=0)) == 1
