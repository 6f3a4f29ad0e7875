import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uniemo_ray.training.records import METRICS_FILE, MetricLog, TrainingProgress
from uniemo_ray.training.trackers import TensorBoardTracker, Tracked


def tensorboard(folder: Path, *, step: int = 0) -> TensorBoardTracker:
    return TensorBoardTracker(Tracked("stage", "id", folder, step))


def test_records_go_to_json_lines_and_tensorboard(tmp_path: Path) -> None:
    with MetricLog(tmp_path, [], [tensorboard(tmp_path)]) as log:
        log.write({"kind": "step", "step": 1, "epoch": 0, "loss": 0.5}, section="step")
        log.write({"kind": "step", "step": 2, "epoch": 0, "loss": 0.25}, section="step")
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 0.25)]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["step/loss"]
    assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [(1, 0.5), (2, 0.25)]


def test_a_resumed_log_replaces_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    first, lost, again = ({"kind": "step", "step": s, "loss": v} for s, v in ((1, 1.0), (2, 2.0), (2, 3.0)))
    with MetricLog(tmp_path, [], [tensorboard(tmp_path)]) as log:
        log.write(first, section="step")
        log.write(lost, section="step")
    with MetricLog(tmp_path, [first], [tensorboard(tmp_path, step=1)]) as log:
        log.write(again, section="step")
        assert log.history == [first, again]
    assert (tmp_path / METRICS_FILE).read_text().splitlines() == [json.dumps(first), json.dumps(again)]


def test_progress_tells_rate_and_remaining_time() -> None:
    progress = TrainingProgress("stage", total_steps=100, epochs=4, step=20, every_s=1e9)
    for step in range(21, 41):
        progress.update(step=step, epoch=1, images=8, metrics={"loss": 1.0})
    line = progress.line(40, epoch=1, metrics={"loss": 0.5, "accuracy": 0.25}, seconds=10.0)
    assert line == (
        "stage [########............] step 40/100 epoch 2/4 16 images/s ETA 0:30 loss 0.500 accuracy 0.250"
    )
