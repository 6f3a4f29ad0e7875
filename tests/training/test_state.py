from pathlib import Path

import numpy as np
import pytest

from uniemo_ray.seeds import id_hashes
from uniemo_ray.training.state import (
    Seen,
    TrainState,
    load_history,
    load_seen,
    load_state,
    save_seen,
    save_state,
)


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
    assert load_state(tmp_path) == state
    assert load_history(tmp_path) == history


def test_another_format_says_what_to_do(tmp_path: Path) -> None:
    save_state(tmp_path, TrainState(), [])
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(ValueError, match=r"another version.*remove the checkpoints"):
        load_state(tmp_path)


def test_seen_ids_of_all_ranks_come_together(tmp_path: Path) -> None:
    first, second = Seen(), Seen()
    first.add(id_hashes(["a", "b"]))
    first.add(id_hashes(["c"]))
    second.add(id_hashes(["d"]))
    save_seen(tmp_path, first, rank=0)
    save_seen(tmp_path, second, rank=1)
    expected = np.sort(id_hashes(["a", "b", "c", "d"]))
    assert np.array_equal(load_seen(tmp_path), expected)
    first.clear()
    assert first.array().shape == (0,)
    assert load_seen(tmp_path / "nothing").shape == (0,)
