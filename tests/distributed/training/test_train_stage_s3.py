"""Checkpoints of training on S3: a killed worker goes on from the last one."""

from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load

from tests.distributed.training.train_case import Squares, build, shards
from uniemo_ray.config import Config
from uniemo_ray.distributed.training.train_stage import TrainResult, train_stage
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.stage_settings import StageSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
ROWS, STEPS = 81, 20


def stage(folder: Path, storage: str) -> TrainResult:
    config = {"stage1": {"epochs": 2, "batch_size": 8, "warmup_steps": 2, "checkpoint_every_s": 1e-6}}
    return train_stage(
        settings=StageSettings(
            stage="understanding", config=Config.model_validate({"data": {"sketch_train": ROWS}, **config})
        ),
        data=shards(f"{storage}/shards", ROWS),
        storage=storage,
        name="tiny",
        build=partial(build, log=str(folder), crash={"step": 7, "kind": "kill"}),
    )


@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_goes_on_from_s3(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    result = stage(tmp_path, s3_uri)
    assert (tmp_path / "crashed").exists()
    assert (result.images, result.left_out, result.attempts) == (160, 2, 2)
    steps = [record["step"] for record in result.history if record["kind"] == "step"]
    assert steps == list(range(1, STEPS + 1))
    bucket_path = s3_uri.removeprefix("s3://")
    weights = open_store(s3_uri).read_bytes(result.weights.removeprefix(f"{bucket_path}/"))
    Squares().net.load_state_dict(load(weights))
    again = stage(tmp_path, s3_uri)
    assert (again.attempts, again.history) == (0, result.history)
