"""What rank 0 tells Prometheus of a training stage."""

import time
from collections.abc import Callable, Mapping

from ray.util import metrics

_TAGS = ("stage",)
WINDOW_S = 30.0
"""Time over which images are counted for a rate. Unit: seconds."""


class StageGauges:
    """Gauges of a stage; a tracker like the others. They end with the worker's process.

    Args:
        stage: Name of the stage, the tag of all of them.
        total_steps: Steps of the whole stage.
        batch_size: Images of a step on all ranks.
        clock: Seconds.
    """

    def __init__(
        self,
        stage: str,
        *,
        total_steps: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tags, self._batch_size, self._clock = {"stage": stage}, batch_size, clock
        self._since: tuple[float, int] | None = None
        self._step = metrics.Gauge("uniemo_train_step", "Steps done", tag_keys=_TAGS)
        self._loss = metrics.Gauge("uniemo_train_loss", "Loss of the last step", tag_keys=_TAGS)
        self._rate = metrics.Gauge("uniemo_train_images_per_second", "Of all workers", tag_keys=_TAGS)
        self._factor = metrics.Gauge(
            "uniemo_train_learning_rate_factor", "Factor on the peak learning rates", tag_keys=_TAGS
        )
        self._saving = metrics.Gauge(
            "uniemo_train_checkpoint_seconds", "Time that workers stood still to save", tag_keys=_TAGS
        )
        total = metrics.Gauge("uniemo_train_steps_total", "Steps of the whole stage", tag_keys=_TAGS)
        total.set(total_steps, self._tags)

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """After each step; of an epoch's means nothing is shown."""
        if "step/loss" not in values:
            return
        self._step.set(step, self._tags)
        self._loss.set(values["step/loss"], self._tags)
        self._factor.set(values.get("step/lr_factor", 1.0), self._tags)
        now = self._clock()
        began, first = self._since = self._since or (now, step)
        if now > began and step > first:
            self._rate.set((step - first) * self._batch_size / (now - began), self._tags)
        if now - began >= WINDOW_S:
            self._since = now, step

    def checkpoint(self, seconds: float) -> None:
        """After each checkpoint."""
        self._saving.set(seconds, self._tags)

    def flush(self) -> None:
        """Ray exports by itself."""

    def close(self) -> None:
        """They end with the process."""
