"""Which end of an attempt counts against which budget."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from tests.distributed.training.work_case import work_in
from uniemo_ray.config import ResourceConfig
from uniemo_ray.distributed.training.attempts import (
    MOST_WITHOUT_PROGRESS,
    PreemptedError,
    Restarts,
    is_preemption,
    raise_if_final,
)
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.training.step_values import NonFiniteLossError

TAKEN = PreemptionError(PreemptionInfo(None, {"node": [1]}))
FAILED = WorkerGroupError("failed", {0: RuntimeError("connection closed by peer")})


@pytest.fixture
def work(tmp_path) -> Work:
    """Of a stage no rank of which has left a note."""
    return work_in(tmp_path)


def restarts(**resources: object) -> Restarts:
    return Restarts("u", ResourceConfig.model_validate(resources))


def test_preemptions_use_up_no_failures(work: Work) -> None:
    counted = restarts(max_failures=1)
    for step in range(1, 40):
        counted.allow_after(TAKEN if step % 2 else None, work, step=step)
    counted.allow_after(FAILED, work, step=40)
    with pytest.raises(TrainingFailedError, match="failed"):
        counted.allow_after(FAILED, work, step=41)
    assert (counted.failures, counted.preemptions) == (2, 39)


def test_preemptions_have_a_budget_of_their_own(work: Work) -> None:
    counted = restarts(max_preemptions=2, max_failures=0)
    counted.allow_after(TAKEN, work, step=1)
    counted.allow_after(None, work, step=2)
    with pytest.raises(PreemptedError, match=r"preempted 3 times.*max_preemptions allows \(2\).*from step 3"):
        counted.allow_after(TAKEN, work, step=3)


def test_a_stage_that_never_gets_further_ends(work: Work) -> None:
    counted = restarts()
    counted.allow_after(TAKEN, work, step=7)
    for _ in range(MOST_WITHOUT_PROGRESS - 1):
        counted.allow_after(TAKEN, work, step=7)
    counted.allow_after(TAKEN, work, step=8)
    for _ in range(MOST_WITHOUT_PROGRESS - 1):
        counted.allow_after(None, work, step=8)
    with pytest.raises(PreemptedError, match=r"5 times in a row.*from step 8.*checkpoint_every_s"):
        counted.allow_after(TAKEN, work, step=8)


def test_ray_says_when_a_machine_was_taken(work: Work) -> None:
    death = ActorDiedError()
    assert not is_preemption(WorkerGroupError("died", {1: death}), work)
    death._preempted = True
    assert is_preemption(WorkerGroupError("died", {0: RuntimeError("closed"), 1: death}), work)
    assert is_preemption(TAKEN, work)


@pytest.mark.parametrize("error", [ValueError("bad row"), NonFiniteLossError("loss is not finite")])
def test_errors_that_would_come_again_are_raised_at_once(error: Exception, work: Work) -> None:
    with pytest.raises(type(error), match=str(error)):
        raise_if_final(WorkerGroupError("failed", {1: error}), is_last=False)
    with pytest.raises(type(error), match=str(error)):
        restarts().allow_after(WorkerGroupError("failed", {1: error}), work, step=1)


def test_other_failures_are_retried_until_the_last_attempt(work: Work) -> None:
    raise_if_final(FAILED, is_last=False)
    with pytest.raises(TrainingFailedError, match="failed"):
        raise_if_final(FAILED, is_last=True)
    with pytest.raises(ControllerError):
        restarts().allow_after(ControllerError(OSError("no reservation")), work, step=1)
