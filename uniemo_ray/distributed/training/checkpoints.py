"""Writes a rank's checkpoints: while training goes on, or at once before the rank ends."""

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray.train
import ray.train.collective
from ray.train import CheckpointConsistencyMode, CheckpointUploadMode

from uniemo_ray.distributed.training.metrics import StageGauges
from uniemo_ray.distributed.training.record_folder import BestWeights, RecordFolder, export
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.scratch import scratch_folder
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Order
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.records import MetricLog
from uniemo_ray.training.state import TrainState, save_state

logger = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """The checkpoints of one rank. Both methods are collective.

    A checkpoint is written to this machine's scratch folder and uploaded from there while training goes on.
    At most one is under way. The last one before a rank ends is uploaded before anything else happens.

    Attributes:
        work: What the driver has told.
        parts: The network.
        engine: Its engine.
        log: Metrics of rank 0; None on other ranks.
        records: Folder of them.
        best: Weights of the best epoch, if the stage is to leave these.
        gauges: Of rank 0; None on other ranks.
    """

    work: Work
    parts: StageParts
    engine: Engine
    log: MetricLog | None
    records: RecordFolder | None
    best: BestWeights | None
    gauges: StageGauges | None = None
    _is_leaving: bool = field(default=False, init=False)
    _unconfirmed: TrainState | None = field(default=None, init=False)

    def ask(self, *, is_due: bool) -> Order:
        """Save if rank 0 finds that it is due. Save and leave if a machine is about to be taken away."""
        notice = ray.train.get_preemption_info()
        self._is_leaving = notice is not None
        if notice is not None:
            logger.info(
                "%s: a machine is about to be taken away (ranks %s): saving now",
                self.work.name,
                ", ".join(map(str, notice.preempted_ranks)),
            )
        is_saved = bool(ray.train.collective.broadcast_from_rank_zero(is_due))
        return Order(is_saved=is_saved or self._is_leaving, is_left=self._is_leaving)

    def save(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Report a checkpoint: every rank its part, rank 0 the position; the last has weights instead."""
        is_complete = state.is_complete(self.work.settings.train.epochs)
        is_last, started = is_complete or self._is_leaving, time.monotonic()
        self._confirm()
        with _new_folder(checkpoint_scratch(self.work)) as folder:
            self._write(folder, state, is_complete=is_complete)
            ray.train.report(
                {"step": state.step, "epoch": state.epoch, **metrics},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_upload_mode=CheckpointUploadMode.SYNC if is_last else CheckpointUploadMode.ASYNC,
                delete_local_checkpoint_after_upload=True,
            )
        self._unconfirmed = state
        if is_last:
            self._confirm()
        if self.gauges is not None:
            self.gauges.checkpoint(time.monotonic() - started)

    def _write(self, folder: Path, state: TrainState, *, is_complete: bool) -> None:
        if is_complete and self.best is not None and state.best_epoch is not None:
            self.best.export(folder, state.best_epoch)
        elif is_complete:
            export(self.parts, self.engine, folder)
        else:
            self.engine.save(folder)
        if self.log is not None and self.records is not None:
            save_state(folder, state, self.log.history)
            self.log.flush()
            self.records.sync()

    def _confirm(self) -> None:
        """Wait until the last checkpoint is complete in the storage; only then drop what the older needs."""
        state, self._unconfirmed = self._unconfirmed, None
        if state is None:
            return
        ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
        if self.best is not None:
            is_complete = state.is_complete(self.work.settings.train.epochs)
            self.best.clean(keep=None if is_complete else state.best_epoch)


def checkpoint_scratch(work: Work) -> Path:
    """Where this machine's ranks keep checkpoints of a stage until they are uploaded."""
    return scratch_folder() / f"uniemo-checkpoints-{hashlib.sha256(work.records.encode()).hexdigest()[:16]}"


def clear_scratch(work: Work) -> None:
    """Remove what ranks of an attempt that was killed have left on this machine.

    Every rank calls it before the first collective of an attempt, so that no rank has written anything yet.
    """
    shutil.rmtree(checkpoint_scratch(work), ignore_errors=True)


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """A folder that stays, for the upload to remove it, unless writing it fails."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
