"""A stage through Ray Train: each rank on a device of its own, and a resume after a killed worker."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.gpu.device import DEVICE, cards
from tests.gpu.stage_case import CRASHED, builder, notes
from tools.tiny.renders import draw_renders
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.emosketch.write import to_png
from uniemo_ray.distributed.training.train_stage import TrainResult, train_stage
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.loading.pieces import shard_rows
from uniemo_ray.training.parts import StageBuilder
from uniemo_ray.training.stage_settings import StageSettings

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
ROWS, BATCH, EPOCHS = 16, 4, 2
STEPS = ROWS // BATCH


def rows() -> list[dict[str, object]]:
    """Labelled pictures."""
    rule, renders = load_rule(), draw_renders(range(ROWS), seed=1, bare_share=0.0)
    return [
        {
            "image_id": f"image-{i}",
            "image": to_png(np.asarray(renders.pixels[i])),
            "emotion": EMOTIONS[i % len(EMOTIONS)],
            "scene": rule.scenes[renders.scenes[i]],
            "objects": [rule.objects[renders.objects[i]]],
        }
        for i in range(ROWS)
    ]


def train(folder: Path, build: StageBuilder) -> TrainResult:
    rule, table = load_rule(), pa.Table.from_pylist(rows())
    shards = open_store(str(folder / "shards"))
    commit_shard(shards, "train/part-00000", table, plan_hash="test")
    config = load_config(
        None,
        [
            f"resources.workers={cards()}",
            f"resources.use_gpu={str(DEVICE == 'cuda').lower()}",
            "encoder.query_length=8",
            f"stage1.epochs={EPOCHS}",
            f"stage1.batch_size={BATCH}",
            "stage1.checkpoint_every_s=1000000",
        ],
    )
    return train_stage(
        settings=StageSettings(
            stage="understanding", config=config, scenes=rule.scenes, objects=rule.objects
        ),
        data=shard_rows([(shards, "train")], columns=list(table.column_names)),
        storage=str(folder / "storage"),
        name="tiny",
        build=build,
    )


def losses(result: TrainResult) -> list[float]:
    return [record["loss"] for record in result.history if record["kind"] == "step"]


@pytest.mark.usefixtures("ray_session")
def test_ranks_have_their_own_devices_and_a_killed_stage_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    straight = train(tmp_path, builder(tmp_path / "straight"))
    found = notes(tmp_path / "straight")
    assert [note["rank"] for note in found] == list(range(cards()))
    assert len({note["gpu"] for note in found}) == cards()
    assert {tuple(note["devices"]) for note in found} == {(DEVICE,)}
    assert all(note["is_current"] for note in found)
    assert {note["backend"] for note in found} == {"nccl" if DEVICE == "cuda" else "gloo"}

    again = tmp_path / "again"
    again.mkdir()
    resumed = train(again, builder(again / "notes", dies_at=STEPS + 2))
    assert (again / "notes" / CRASHED).exists()
    assert resumed.attempts == 2
    assert resumed.images == straight.images == ROWS * EPOCHS
    assert losses(resumed) == pytest.approx(losses(straight), rel=1e-3)
