"""A rank in this process, through Ray Train's local mode, which starts no Ray."""

from functools import partial
from pathlib import Path

import pytest
import ray.train
from ray.train.torch import TorchTrainer

from tests.distributed.training.train_case import build, shards
from tests.distributed.training.work_case import work_in
from uniemo_ray.config import Config
from uniemo_ray.distributed.training import rank
from uniemo_ray.distributed.training.entry import run_worker
from uniemo_ray.scratch import SCRATCH
from uniemo_ray.training.state import load_state


@pytest.mark.slow
def test_a_rank_saves_on_its_way_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "note_machine", lambda work: None)  # there is no machine without Ray
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    (tmp_path / "log").mkdir()
    stage = {
        "epochs": 2,
        "batch_size": 8,
        "warmup_steps": 2,
        "checkpoint_every_s": 1e-6,
        "checkpoint_share": 1,
    }
    work = work_in(
        tmp_path,
        name="tiny",
        config=Config.model_validate({"stage1": stage}),
        build=partial(build, log=str(tmp_path / "log")),
        steps_per_epoch=5,
        data=shards(str(tmp_path / "rows"), 40),
    )
    reported: list[int] = []
    report = ray.train.report

    def noted(metrics: dict[str, float], **options: object) -> None:
        checkpoint = options["checkpoint"]
        assert isinstance(checkpoint, ray.train.Checkpoint)
        reported.append(load_state(Path(checkpoint.path), epochs=2).step)
        report(metrics, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ray.train, "report", noted)
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"work": work},
        scaling_config=ray.train.ScalingConfig(num_workers=0),
        run_config=ray.train.RunConfig(name="tiny", storage_path=str(tmp_path / "storage")),
    )
    result = trainer.fit()
    assert reported == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    assert result.metrics is not None
    assert (result.metrics["step"], result.metrics["epoch"]) == (10, 2)
