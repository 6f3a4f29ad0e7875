"""Metrics as they happen: JSON lines, trackers and progress lines, written by rank 0."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from uniemo_ray.training.trackers import Tracker

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
BAR_WIDTH = 20


class MetricLog:
    """Appends one record per step or epoch to `metrics.jsonl`, and hands its numbers to trackers.

    Args:
        folder: Of the file; what a stopped attempt wrote after its last checkpoint is replaced.
        history: Records up to the step that training goes on from.
        trackers: Where numbers go as well; closed with the log.
    """

    def __init__(
        self, folder: Path, history: Sequence[dict[str, Any]], trackers: Sequence[Tracker] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.history = list(history)
        self._file = (folder / METRICS_FILE).open("w", buffering=1, encoding="utf-8")
        self._file.writelines(json.dumps(record) + "\n" for record in self.history)
        self._trackers = trackers

    def write(self, record: dict[str, Any], *, section: str) -> None:
        """Add a record; its `step` (int) is the abscissa, numbers become curves `section/name`."""
        self.history.append(record)
        self._file.write(json.dumps(record) + "\n")
        values = {f"{section}/{name}": value for name, value in record.items() if isinstance(value, float)}
        for tracker in self._trackers:
            tracker.write(values, step=record["step"])

    def flush(self) -> None:
        """Make everything visible to readers."""
        self._file.flush()
        for tracker in self._trackers:
            tracker.flush()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class TrainingProgress:
    """Logs a line with bar, rate and remaining time, every few seconds.

    Args:
        name: What is trained.
        total_steps: Steps of the whole stage.
        epochs: Epochs of the whole stage.
        step: Steps done by earlier attempts: they do not count for the rate.
        every_s: Seconds between lines.
    """

    def __init__(self, name: str, *, total_steps: int, epochs: int, step: int, every_s: float = 5.0) -> None:
        self._name, self._total, self._epochs, self._first = name, total_steps, epochs, step
        self._every_s = every_s
        self._images = 0
        self._start = self._last = time.monotonic()

    def update(self, *, step: int, epoch: int, images: int, metrics: dict[str, float]) -> None:
        """Count a step of `images` images (all ranks) and log if it is time."""
        self._images += images
        now = time.monotonic()
        if now - self._last >= self._every_s or step == self._total:
            self._last = now
            logger.info("%s", self.line(step, epoch=epoch, metrics=metrics, seconds=now - self._start))

    def line(self, step: int, *, epoch: int, metrics: dict[str, float], seconds: float) -> str:
        """One progress line; `seconds` is the time of this attempt."""
        rate = self._images / seconds if seconds > 0 else 0.0
        left_s = (self._total - step) * seconds / max(1, step - self._first)
        filled = BAR_WIDTH * step // max(1, self._total)
        shown = " ".join(f"{key} {metrics[key]:.3f}" for key in ("loss", "accuracy") if key in metrics)
        return (
            f"{self._name} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] step {step}/{self._total} "
            f"epoch {min(epoch + 1, self._epochs)}/{self._epochs} {rate:.0f} images/s "
            f"ETA {int(left_s) // 60}:{int(left_s) % 60:02d} {shown}"
        )
