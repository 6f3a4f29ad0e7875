"""When checkpoints are uploaded, and what stays until they are complete."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.collective
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.v2.api.preemption import PreemptionInfo

from tests.distributed.training.work_case import work_in
from tests.training.tiny import TinyObjective, tiny_config
from uniemo_ray.config import Config
from uniemo_ray.distributed.training.checkpoints import Checkpoints, checkpoint_scratch, clear_scratch
from uniemo_ray.scratch import SCRATCH
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.state import TrainState

EPOCHS = 2


@dataclass
class Storage:
    """Behaves as Ray Train does: an asynchronous upload is complete when somebody has waited for it."""

    notice: PreemptionInfo | None = None
    is_full: bool = False
    under_way: list[tuple[int, Path]] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)

    def report(
        self,
        metrics: dict[str, Any],
        *,
        checkpoint: Checkpoint,
        checkpoint_upload_mode: CheckpointUploadMode,
        delete_local_checkpoint_after_upload: bool,
    ) -> None:
        if self.is_full:
            raise OSError("no space left")
        assert any(Path(checkpoint.path).iterdir())
        assert delete_local_checkpoint_after_upload
        self.modes.append(checkpoint_upload_mode.value)
        self.under_way.append((metrics["step"], Path(checkpoint.path)))
        if checkpoint_upload_mode is CheckpointUploadMode.SYNC:
            self.wait()

    def wait(self, **_: object) -> None:
        for step, path in self.under_way:
            shutil.rmtree(path)
            self.complete.append(step)
        self.under_way.clear()


class Best:
    """Notes what the storage held when weights of older epochs were dropped."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.cleaned = storage, []

    def clean(self, *, keep: int | None) -> None:
        self.cleaned.append((keep, list(self.storage.complete)))

    def export(self, folder: Path, epoch: int) -> None:
        (folder / "net.safetensors").write_text(str(epoch))


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Storage:
    made = Storage()
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    monkeypatch.setattr(ray.train, "report", made.report)
    monkeypatch.setattr(ray.train, "get_all_reported_checkpoints", made.wait)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: made.notice)
    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda value: value)
    return made


@pytest.fixture
def checkpoints(storage: Storage, tmp_path: Path) -> Checkpoints:
    objective = TinyObjective()
    config = Config.model_validate({"stage1": {"epochs": EPOCHS, "batch_size": 8}})
    work = work_in(tmp_path, config=config, steps_per_epoch=5)
    parts = StageParts(objective, objective.groups(), None, {"net": objective.net})  # type: ignore[arg-type]
    engine = Engine(objective, objective.groups(), train=tiny_config(), total_steps=10, seed=1)
    return Checkpoints(work, parts, engine, None, None, Best(storage))  # type: ignore[arg-type]


def state(step: int, *, epoch: int = 0, best: int | None = None) -> TrainState:
    return TrainState(step=step, epoch=epoch, best_epoch=best)


def test_training_goes_on_while_one_checkpoint_is_uploaded(
    storage: Storage, checkpoints: Checkpoints
) -> None:
    checkpoints.save(state(1), {})
    assert [step for step, _ in storage.under_way] == [1]
    assert storage.complete == []
    checkpoints.save(state(2), {})
    assert [step for step, _ in storage.under_way] == [2]
    assert storage.complete == [1]
    assert storage.under_way[0][1].parent == checkpoint_scratch(checkpoints.work)


def test_the_last_checkpoint_is_complete_before_anything_else(
    storage: Storage, checkpoints: Checkpoints
) -> None:
    checkpoints.save(state(9), {})
    checkpoints.save(state(10, epoch=EPOCHS), {})
    assert (storage.complete, storage.under_way) == ([9, 10], [])
    assert storage.modes == ["ASYNC", "SYNC"]  # a failed upload of the last one is an error right there
    assert not list(checkpoint_scratch(checkpoints.work).iterdir())


def test_a_notice_saves_at_once_and_completes(storage: Storage, checkpoints: Checkpoints) -> None:
    assert checkpoints.ask(is_due=False) == (False, False)
    assert checkpoints.ask(is_due=True) == (True, False)
    storage.notice = PreemptionInfo(None, {"node": [1]})
    assert checkpoints.ask(is_due=False) == (True, True)
    checkpoints.save(state(3), {})
    assert (storage.complete, storage.under_way) == ([3], [])


def test_weights_of_an_older_epoch_stay_until_the_checkpoint_that_drops_them_is_complete(
    storage: Storage, checkpoints: Checkpoints
) -> None:
    checkpoints.save(state(5, epoch=1, best=0), {})
    assert checkpoints.best.cleaned == []  # type: ignore[union-attr]
    checkpoints.save(state(7, epoch=1, best=0), {})
    checkpoints.save(state(10, epoch=EPOCHS, best=1), {})
    assert checkpoints.best.cleaned == [(0, [5]), (0, [5, 7]), (None, [5, 7, 10])]  # type: ignore[union-attr]


def test_nothing_is_left_on_the_machine(storage: Storage, checkpoints: Checkpoints) -> None:
    storage.is_full = True
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(state(1), {})
    scratch = checkpoint_scratch(checkpoints.work)
    assert not list(scratch.iterdir())
    (scratch / "of-a-killed-rank").mkdir()
    clear_scratch(checkpoints.work)
    assert not scratch.exists()
    clear_scratch(checkpoints.work)
