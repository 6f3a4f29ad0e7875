"""When a stage is saved: often, as long as saving takes only a small share of the time."""

import time
from collections.abc import Callable


class Cadence:
    """Decides when the next checkpoint is due from what the last one took.

    Args:
        shortest_s: Shortest time of training between two checkpoints inside an epoch, in seconds.
        share: Largest share of the time that saving may take, in (0, 1]; 1 sets no limit.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self, *, shortest_s: float, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shortest_s, self._share, self._clock = shortest_s, share, clock
        self._saved_at = clock()
        self._least_s = 0.0

    @property
    def interval_s(self) -> float:
        """Time of training before the next checkpoint inside an epoch, in seconds."""
        return max(self._shortest_s, self._least_s)

    def is_due(self, *, is_epoch_end: bool = False) -> bool:
        """Whether to save now; the end of an epoch needs no shortest time, but keeps to the share."""
        wait_s = self._least_s if is_epoch_end else self.interval_s
        return self._clock() - self._saved_at >= wait_s

    def saved(self, *, held_s: float) -> None:
        """A checkpoint has just been written, for which every worker stood still for `held_s` seconds."""
        self._saved_at = self._clock()
        self._least_s = held_s * (1 - self._share) / self._share
