"""How often a stage may start again: machines that are taken away and failures count apart."""

import logging
from dataclasses import dataclass

from ray.exceptions import RayActorError
from ray.train import ControllerError, PreemptionError, TrainingFailedError

from uniemo_ray.config import ResourceConfig
from uniemo_ray.distributed.training.machines import lost_machines
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.settings_view import UndeclaredSettingError
from uniemo_ray.training.step_values import NonFiniteLossError

logger = logging.getLogger(__name__)

MOST_WITHOUT_PROGRESS = 5
"""Preemptions in a row, without a new checkpoint between them, that end a stage."""


class PreemptedError(RuntimeError):
    """A stage was preempted more often than it may be; its checkpoints remain, and submitting goes on."""


@dataclass
class Restarts:
    """What has ended the attempts of a stage so far.

    Attributes:
        name: Of the stage.
        resources: The budgets.
        failures: Attempts that ended by an error on machines that are still there.
        preemptions: Attempts that ended because a machine was taken away.
        in_vain: Preemptions since the last new checkpoint.
        step: Step of the last checkpoint.
    """

    name: str
    resources: ResourceConfig
    failures: int = 0
    preemptions: int = 0
    in_vain: int = 0
    step: int = 0

    def allow_after(self, error: TrainingFailedError | None, work: Work, *, step: int) -> None:
        """Allow another attempt after one that has ended before its stage, or raise why not.

        Args:
            error: What has ended it; None if its ranks left after a notice.
            work: What its ranks were told.
            step: Step of the last checkpoint that there is now.
        """
        if error is not None:
            raise_if_final(error, is_last=isinstance(error, ControllerError))
        if error is None or is_preemption(error, work):
            self.count_preemption(step=step)
            logger.warning("%s: a machine was taken away; step %d is saved", self.name, step)
            return
        if not self.count_failure():
            raise error
        logger.warning("%s: an attempt failed (%s)", self.name, first_line(error))

    def count_failure(self) -> bool:
        """Whether another attempt is allowed after a failure."""
        self.failures += 1
        return self.failures <= self.resources.max_failures

    def count_preemption(self, *, step: int) -> None:
        """Allow another attempt after a preemption.

        Args:
            step: Step of the last checkpoint that there is now.

        Raises:
            PreemptedError: the budget is used up, or there is no progress.
        """
        self.preemptions += 1
        self.in_vain = self.in_vain + 1 if step <= self.step else 0
        self.step = max(self.step, step)
        most = self.resources.max_preemptions
        if most is not None and self.preemptions > most:
            raise PreemptedError(
                f"{self.name} was preempted {self.preemptions} times, more often than "
                f"resources.max_preemptions allows ({most}): raise it, or submit again to go on from step "
                f"{step}"
            )
        if self.in_vain >= MOST_WITHOUT_PROGRESS:
            raise PreemptedError(
                f"{self.name} was preempted {self.in_vain} times in a row and never got from step {step} to "
                f"the next checkpoint: use machines that stay longer, or lower the stage's "
                f"checkpoint_every_s, then submit again"
            )


def is_preemption(error: TrainingFailedError, work: Work) -> bool:
    """Whether an attempt ended because a machine was taken away, and not by a fault on one that is there."""
    if isinstance(error, PreemptionError):
        return True
    deaths = (getattr(e, "health_check_failure", e) for e in getattr(error, "worker_failures", {}).values())
    if any(isinstance(death, RayActorError) and death.preempted for death in deaths):
        return True
    lost = lost_machines(work)
    for node in lost:
        logger.warning("%s: machine %s does not answer any more", work.name, node[:12])
    return bool(lost)


def raise_if_final(error: TrainingFailedError, *, is_last: bool) -> None:
    """Raise what another attempt would only repeat, as itself; anything else when attempts are used up."""
    for cause in getattr(error, "worker_failures", {}).values():
        original = getattr(cause, "_base_exc", cause)
        if isinstance(original, (ValueError, NonFiniteLossError, UndeclaredSettingError)):
            raise original from error
    if is_last:
        raise error


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().partition(". ")[0] if lines else type(error).__name__
