"""Where a training stage stands: what a checkpoint holds beside the engine's shards."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FORMAT = 2
"""2: a position in an epoch is a number of steps in an order that any number of workers shares."""
_FINISHED_FORMATS = (1, FORMAT)
STATE_FILE = "state.json"
HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True)
class TrainState:
    """Position of a stage after a step.

    Attributes:
        epoch: Epoch to go on with, 0-based; equal to the number of epochs when the stage is complete.
        step_in_epoch: Steps done in it.
        step: Steps done in all.
        images: Images seen, of all ranks, counted once per epoch.
        seconds: Training time so far, summed over attempts.
        world_size: Ranks that wrote it: ZeRO shards fit this number only.
        best_epoch: Epoch with the highest validation accuracy so far, 0-based; None before the first, and
            where none is sought.
        best_accuracy: That accuracy.
        is_stopped: Whether the stage has ended before its last epoch, because accuracy rose no more.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    world_size: int = 1
    best_epoch: int | None = None
    best_accuracy: float = -1.0
    is_stopped: bool = False

    def is_complete(self, epochs: int) -> bool:
        """Whether a stage of so many epochs has ended here."""
        return self.is_stopped or self.epoch >= epochs

    def after_step(self, *, images: int, seconds: float) -> "TrainState":
        """The state one step later in the same epoch; `images` counts all ranks."""
        return replace(
            self,
            step_in_epoch=self.step_in_epoch + 1,
            step=self.step + 1,
            images=self.images + images,
            seconds=self.seconds + seconds,
        )

    def next_epoch(self) -> "TrainState":
        """The state at the start of the next epoch."""
        return replace(self, epoch=self.epoch + 1, step_in_epoch=0)

    def judged(self, accuracy: float, *, stop_after: int | None) -> "TrainState":
        """The state after validation of the epoch, before the next one starts.

        Args:
            accuracy: On the validation split; only more than ever before is a gain.
            stop_after: Epochs in a row without a gain that end the stage; None for no end.
        """
        if accuracy > self.best_accuracy:
            return replace(self, best_epoch=self.epoch, best_accuracy=accuracy)
        best = -1 if self.best_epoch is None else self.best_epoch
        return replace(self, is_stopped=stop_after is not None and self.epoch - best >= stop_after)


def save_state(folder: Path, state: TrainState, history: list[dict[str, Any]]) -> None:
    """Write the position and the metrics so far (rank 0)."""
    (folder / STATE_FILE).write_text(json.dumps({"format": FORMAT, **asdict(state)}), encoding="utf-8")
    (folder / HISTORY_FILE).write_text(
        "".join(json.dumps(record) + "\n" for record in history), encoding="utf-8"
    )


def load_state(folder: Path, *, epochs: int) -> TrainState:
    """Read the position of a checkpoint.

    Args:
        folder: The checkpoint.
        epochs: Of the whole stage. A finished stage of an older version stays valid.

    Raises:
        ValueError: a file of another version, whose stage is not finished.
    """
    values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    written = values.pop("format", None)
    is_finished = written in _FINISHED_FORMATS and TrainState(**values).is_complete(epochs)
    if written != FORMAT and not is_finished:
        raise ValueError(
            f"the checkpoint {folder} was written by another version of uniemo_ray, which showed the images "
            f"in another order: train this stage anew: remove the folder of its checkpoints"
        )
    return TrainState(**values)


def load_history(folder: Path) -> list[dict[str, Any]]:
    """Read the metrics of a checkpoint, one record per step or epoch."""
    return [json.loads(line) for line in (folder / HISTORY_FILE).read_text(encoding="utf-8").splitlines()]
