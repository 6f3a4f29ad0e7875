"""Machines that have left a note, and whether they still answer."""

from pathlib import Path

import pytest
import ray
import ray.train

from tests.distributed.training.work_case import work_in
from uniemo_ray.distributed.training.machines import forget_machines, lost_machines, note_machine
from uniemo_ray.distributed.training.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return work_in(tmp_path / "u")


class FirstRank:
    def get_world_rank(self) -> int:
        return 0


@pytest.mark.ray
def test_a_machine_that_is_there_answers_and_another_is_lost(
    work: Work, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lost_machines(work) == []
    monkeypatch.setattr(ray.train, "get_context", FirstRank)
    note_machine(work)
    here = ray.get_runtime_context().get_node_id()
    assert (Path(work.machines) / "rank-00000").read_text() == here
    assert lost_machines(work) == []
    gone = "ab" * (len(here) // 2)
    (Path(work.machines) / "rank-00001").write_text(gone)
    assert lost_machines(work, timeout_s=20) == [gone]
    forget_machines(work)
    assert not Path(work.machines).exists()
    assert lost_machines(work) == []
    forget_machines(work)
