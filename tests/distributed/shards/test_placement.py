"""On which nodes actors may start."""

import logging
from pathlib import Path
from typing import Any

import pytest

from uniemo_ray.distributed.shards import health, placement
from uniemo_ray.distributed.shards.health import FAILURES, Health, NoActorError
from uniemo_ray.distributed.shards.placement import Placement
from uniemo_ray.pools import Pool as Machines
from uniemo_ray.store.filesystem import open_store

ANYWHERE, WITHOUT_BAD = None, {"ray.io/node-id": "!in(bad)"}


class Pool:
    """Notes as if from several nodes, one after the other."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, machines: Machines | None = None
    ) -> None:
        self.health, self._patch, self._now = Health(open_store(str(folder)), "p"), monkeypatch, 0
        self.placement = Placement(self.health, machines or Machines())
        self.names: list[str] = []
        monkeypatch.setattr(health, "_listed", lambda: {*self.names, "another-1"})

    def place(self) -> dict[str, str] | None:
        """Where the next actor may be, which then is there."""
        options = self.placement()
        self.names.append(options["name"])
        return options.get("label_selector")

    def fail(
        self, node: str, actor: str, kind: health.Kind = "gone", reason: str = "CUDA error: ECC"
    ) -> None:
        began, self._now = self._now, self._now + 10
        self._patch.setattr(health, "here", lambda: (node, actor))
        self._patch.setattr(health, "now_ms", lambda: self._now)
        self.health.note(kind, began_ms=began, error=RuntimeError(reason))

    def has_nodes(self, *nodes: dict[str, Any]) -> None:
        self._patch.setattr(placement.ray, "nodes", lambda: list(nodes))


def node(
    name: str, *, is_alive: bool = True, cpus: float = 4, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"NodeID": name, "Alive": is_alive, "Resources": {"CPU": cpus}, "Labels": labels or {}}


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    return Pool(tmp_path, monkeypatch)


def test_a_node_that_keeps_failing_is_left_out_and_named_once(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.has_nodes(node("good"), node("bad"))
    for number in range(FAILURES):
        assert pool.place() is ANYWHERE
        pool.fail("bad", f"a{number}")
    with caplog.at_level(logging.WARNING):
        assert pool.place() == pool.place() == WITHOUT_BAD
    (record,) = caplog.records
    assert "failed 3 times" in record.getMessage()
    assert "(127.0.0.1, node bad): CUDA error: ECC" in record.getMessage()


@pytest.mark.parametrize("other", [node("gone", is_alive=False), node("small", cpus=0)])
def test_others_go_on_without_a_node_for_the_next_actor(pool: Pool, other: dict[str, Any]) -> None:
    """Three actors; one fails again and again, and no other node has room."""
    pool.has_nodes(node("bad"), other)
    for _ in range(2):
        pool.place()
    for number in range(FAILURES):
        assert pool.place() is ANYWHERE
        pool.fail("bad", f"p-{number + 3}")
    pool.names = ["p-1", "p-2"]  # the others, which started with the first
    for _ in range(5):  # waits, as long as they live
        assert pool.place() == WITHOUT_BAD
    pool.fail("bad", "p-1", "failed")  # starts again
    assert pool.place() == WITHOUT_BAD
    pool.fail("bad", "p-1")
    pool.names.remove("p-1")
    assert pool.place() == WITHOUT_BAD
    pool.fail("bad", "p-2", reason="No space left")  # and Ray still lists it
    with pytest.raises(
        NoActorError, match=r"^no actor of the pool can start: 6 starts failed, .*node bad\): No space left$"
    ):
        pool.place()


def test_a_node_that_comes_is_used(pool: Pool) -> None:
    pool.has_nodes(node("bad"))
    for number in range(FAILURES):
        pool.place()
        pool.fail("bad", f"p-{number + 1}")
    pool.has_nodes(node("bad"), node("good"))
    assert pool.place() == WITHOUT_BAD
    pool.has_nodes(node("bad"))
    assert pool.place() == WITHOUT_BAD  # that one may have started


def test_a_few_failures_leave_no_node_out(pool: Pool) -> None:
    pool.has_nodes(node("n1"))
    for number in range(FAILURES - 1):
        pool.fail("n1", f"a{number}")
    assert pool.place() is ANYWHERE


def test_the_labels_of_the_pool_hold_beside_nodes_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = {"uniemo/pool": "own"}, {"uniemo/pool": "other"}
    pool = Pool(tmp_path, monkeypatch, Machines(labels=own, fallback=(other,)))
    pool.has_nodes(node("bad", labels=own), node("good", labels=own), node("foreign"))
    assert pool.place() == own
    for number in range(FAILURES):
        pool.fail("bad", f"a{number}")
    options = pool.placement()
    assert options["label_selector"] == own | WITHOUT_BAD
    assert options["fallback_strategy"] == [{"label_selector": other | WITHOUT_BAD}]


def test_a_node_of_another_pool_is_no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"uniemo/pool": "own"}
    pool = Pool(tmp_path, monkeypatch, Machines(labels=own))
    pool.has_nodes(node("bad", labels=own), node("foreign"))
    for number in range(FAILURES):
        pool.place()
        pool.fail("bad", f"p-{number + 1}")
    with pytest.raises(NoActorError):
        pool.place()
