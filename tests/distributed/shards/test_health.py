"""Notes of a pool's processes."""

from pathlib import Path

import pytest

from uniemo_ray.distributed.shards import health
from uniemo_ray.distributed.shards.health import Health, Note, alive, failures_by_node
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store


class Epoch:
    """A lease with this number."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def check(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def note(node: str, actor: str, kind: health.Kind, began_s: int, noted_s: int) -> Note:
    return Note(node, actor, kind, began_s * 1000, noted_s * 1000, key="")


def test_notes_are_read_as_they_were_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "here", lambda: ("n1", "a1"))
    monkeypatch.setattr(health, "now_ms", lambda: 25)
    kept = Health(store, "p")
    kept.note("begun", began_ms=10)
    kept.note("failed", began_ms=10, error=RuntimeError("CUDA error: no\nmore"))
    Health(store, "q").note("gone", began_ms=20)
    begun, failed = sorted(kept.notes(), key=lambda note: note.kind)
    assert (begun.node, begun.actor, begun.kind, begun.began_ms, begun.noted_ms) == (
        "n1",
        "a1",
        "begun",
        10,
        25,
    )
    assert (failed.kind, begun.is_failure, failed.is_failure) == ("failed", False, True)
    assert kept.tell(failed).endswith("(127.0.0.1, node n1): CUDA error: no more")
    assert [note.kind for note in Health(store, "q").notes()] == ["gone"]


def test_what_fails_on_a_node_at_the_same_time_counts_once() -> None:
    together = [note("n1", f"a{number}", "gone", 0, 10 + number) for number in range(8)]
    assert failures_by_node(together) == {"n1": 1}
    later = [note("n1", "b1", "failed", 11, 20), note("n1", "b2", "begun", 30, 30)]
    elsewhere = [note("n2", "c1", "gone", 0, 12)]
    assert failures_by_node([*together, *later, *elsewhere]) == {"n1": 2, "n2": 1}


def test_an_actor_is_alive_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_listed", lambda: {"p-1", "p-2", "p-3", "q-1", "p"})
    notes = [note("n1", name, "begun", 0, 1) for name in ("p-1", "p-2", "p-4")]
    found = [*notes, note("n1", "p-1", "failed", 0, 2), note("n1", "p-2", "gone", 0, 2)]
    assert alive("p", found) == {"p-1", "p-3"}


def test_a_pool_clears_its_own_notes_and_those_of_earlier_drivers(store: Store) -> None:
    names = [(1, "old"), (2, "mine"), (2, "beside"), (3, "later")]
    pools = {name: Health(store.fenced(Epoch(epoch)), name) for epoch, name in names}
    for pool in pools.values():
        pool.note("begun", began_ms=1)
    pools["mine"].clear()
    assert {name: len(pool.notes()) for name, pool in pools.items()} == {
        "old": 0,
        "mine": 0,
        "beside": 1,
        "later": 1,
    }
