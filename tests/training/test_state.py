from pathlib import Path

import pytest

from uniemo_ray.training.state import TrainState, load_history, load_state, save_state


def test_positions_count_steps_and_images() -> None:
    state = TrainState(world_size=2)
    for _ in range(3):
        state = state.after_step(images=8, seconds=0.5)
    assert (state.epoch, state.step_in_epoch, state.step, state.images, state.seconds) == (0, 3, 3, 24, 1.5)
    state = state.next_epoch().after_step(images=4, seconds=0.5)
    assert (state.epoch, state.step_in_epoch, state.step, state.images) == (1, 1, 4, 28)


def test_state_and_history_survive(tmp_path: Path) -> None:
    state = TrainState(epoch=1, step_in_epoch=2, step=12, images=96, seconds=3.5, world_size=2)
    history = [{"kind": "step", "step": 1, "loss": 0.1 + 0.2}, {"kind": "epoch", "step": 10}]
    save_state(tmp_path, state, history)
    assert load_state(tmp_path, epochs=3) == state
    assert load_history(tmp_path) == history


@pytest.mark.parametrize("written", ["1", "7", "null"])
def test_a_stage_begun_by_another_version_is_refused_in_one_line(tmp_path: Path, written: str) -> None:
    save_state(tmp_path, TrainState(epoch=1, step_in_epoch=4), [])
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace('"format": 2', f'"format": {written}'))
    with pytest.raises(
        ValueError, match=r"another version.*train this stage anew: remove the folder"
    ) as found:
        load_state(tmp_path, epochs=2)
    assert "\n" not in str(found.value)


def test_a_stage_that_an_older_version_finished_stays_valid(tmp_path: Path) -> None:
    save_state(tmp_path, TrainState(epoch=2), [])
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    assert load_state(tmp_path, epochs=2) == TrainState(epoch=2)


@pytest.mark.parametrize(
    ("accuracies", "stop_after", "ended", "best"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, None, 3),
        ([0.5, 0.5, 0.6], 1, 1, 0),  # as much is no gain
        ([0.5, 0.4, 0.6, 0.5, 0.4], 2, 4, 2),
        ([0.5, 0.4, 0.3, 0.2], None, None, 0),
        ([float("nan"), float("nan")], 2, 1, None),
    ],
)
def test_a_stage_ends_after_epochs_without_gain(
    accuracies: list[float], stop_after: int | None, ended: int | None, best: int | None, tmp_path: Path
) -> None:
    state, last = TrainState(), None
    for epoch, accuracy in enumerate(accuracies):
        save_state(tmp_path, state, [])  # as if stopped and resumed before each epoch
        state = load_state(tmp_path, epochs=9).judged(accuracy, stop_after=stop_after)
        if state.is_stopped:
            last = epoch
            break
        state = state.next_epoch()
    assert (last, state.best_epoch) == (ended, best)
    assert state.is_complete(9) is (ended is not None)


def test_a_state_of_an_earlier_version_was_never_stopped(tmp_path: Path) -> None:
    save_state(tmp_path, TrainState(epoch=1), [])
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace(', "is_stopped": false', ""))
    assert load_state(tmp_path, epochs=2) == TrainState(epoch=1)
