"""A training stage on a cluster: Ray Train workers that read shards themselves, DeepSpeed inside.

Ray Train restarts nothing by itself here: restarts are a loop of the driver, and a killed driver that is
started again simply enters the same loop.
"""

import logging
import posixpath
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from pyarrow import fs
from ray.train import ControllerError, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from uniemo_ray.config import ResourceConfig, TrainConfig
from uniemo_ray.distributed.training.cluster_decode import check_spare_cpu
from uniemo_ray.distributed.training.entry import run_worker
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.settings_view import UndeclaredSettingError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.engine import NonFiniteLossError
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.parts import StageBuilder
from uniemo_ray.training.schedule import steps_per_epoch
from uniemo_ray.training.stage_settings import StageSettings
from uniemo_ray.training.state import TrainState, load_history, load_state

logger = logging.getLogger(__name__)

PROCESS_GROUP_TIMEOUT_S = 600
SNAPSHOT = "checkpoint_manager_snapshot.json"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A complete stage.

    Attributes:
        checkpoint: Path of its last checkpoint in the storage's file system; it holds the weights.
        weights: Path of `net.safetensors`, the full fp32 network, there.
        records: Folder of `metrics.jsonl` and the TensorBoard event file there.
        history: One record per step and per epoch.
        seconds: Time in training steps, of all attempts that counted.
        images: Images seen, over all epochs and ranks.
        left_out: Images that would not have filled a batch at an epoch's end, over all epochs.
        attempts: Worker groups started by this call; 0 if the stage was complete already.
    """

    checkpoint: str
    weights: str
    records: str
    history: list[dict[str, Any]]
    seconds: float
    images: int
    left_out: int
    attempts: int


@dataclass(frozen=True)
class _Resume:
    """The last checkpoint of a stage, as far as the driver needs it."""

    path: str
    state: TrainState
    history: list[dict[str, Any]]


def train_stage(
    *,
    settings: StageSettings,
    data: ShardRows,
    storage: str,
    name: str,
    val: ShardRows | None = None,
    build: StageBuilder | None = None,
) -> TrainResult:
    """Train one stage to its end, from its last checkpoint in `storage`/`name` if there is one.

    Args:
        settings: What the stage is built from.
        data: Rows with image_id (unique), image, emotion, scene, objects and maybe latent, in shards that
            every worker can read.
        storage: Local folder or `s3://bucket/prefix`.
        name: Of the stage, a folder in `storage`; the same name resumes.
        val: Rows to evaluate on after each epoch.
        build: Makes `StageParts` on the workers, instead of `build_stage`.

    Raises:
        ValueError: too few images, no CPU left to decode them, or a checkpoint of another number of workers
            or version.
        NonFiniteLossError: training diverged; a restart would as well, so there is none.
        ControllerError: the worker group could not even start. Ray then keeps what it had reserved until
            the job ends, so another attempt would wait for ever; submitting again goes on.
        TrainingFailedError: more than `resources.max_failures` worker failures.
    """
    config, train, resources = settings.config, settings.train, settings.config.resources
    filesystem, root = open_store(storage).arrow()
    folder = posixpath.join(root, name)
    rows = data.rows
    done = _last_checkpoint(filesystem, folder, epochs=train.epochs)
    if done is not None and done.state.epoch >= train.epochs:
        return _result(done, folder, rows=rows, attempts=0)
    if train.decode == "cluster":
        check_spare_cpu(resources, "stage1" if settings.stage == "understanding" else "stage2")
    _check_rows(rows, train)
    _log_shares(name, rows, train, resources)
    work = Work(
        name=name,
        settings=settings,
        build=build,
        seed=config.seed,
        steps_per_epoch=steps_per_epoch(rows, batch_size=train.batch_size),
        threads=resources.cpus_per_worker,
        data=data,
        val=val,
        filesystem=filesystem,
        records=posixpath.join(folder, "records"),
    )
    attempts = _train(work, root, resources)
    done = _last_checkpoint(filesystem, folder, epochs=train.epochs)
    if done is None or done.state.epoch < train.epochs:
        raise RuntimeError(f"{name} ended without its last checkpoint in {folder}")
    return _result(done, folder, rows=rows, attempts=attempts)


def _train(work: Work, root: str, resources: ResourceConfig) -> int:
    """Run attempts until one succeeds; their number."""
    attempt = 0
    while True:
        attempt += 1
        folder = posixpath.join(root, work.name)
        resume = _last_checkpoint(work.filesystem, folder, epochs=work.settings.train.epochs)
        if resume is not None:
            _check_world(resume, work, resources)
        step = resume.state.step if resume else 0
        if step or attempt > 1:
            logger.info("%s: attempt %d, from step %d of %d", work.name, attempt, step, work.total_steps)
        try:
            _fit(work, root, resources)
            return attempt
        except TrainingFailedError as error:
            is_last = attempt > resources.max_failures or isinstance(error, ControllerError)
            _raise_if_final(error, is_last=is_last)
            logger.warning("%s: attempt %d failed (%s)", work.name, attempt, _first_line(error))


def _fit(work: Work, root: str, resources: ResourceConfig) -> None:
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"work": work},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": 1} if resources.use_gpu else {}),
            },
        ),
        torch_config=TorchConfig(timeout_s=PROCESS_GROUP_TIMEOUT_S),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # Ray declares the types of Train v1
            name=work.name,
            storage_path=root,
            storage_filesystem=work.filesystem,
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                max_preemption_failures=0,  # type: ignore[call-arg]  # declared as that of Ray before Train v2
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=work.settings.train.keep_checkpoints),
        ),
    )
    trainer.fit()


def _last_checkpoint(filesystem: fs.FileSystem, folder: str, *, epochs: int) -> _Resume | None:
    """The last complete checkpoint of a stage, or None before the first."""
    if filesystem.get_file_info(posixpath.join(folder, SNAPSHOT)).type != fs.FileType.File:
        return None
    checkpoint = ray.train.Result.from_path(folder, storage_filesystem=filesystem).checkpoint
    if checkpoint is None:
        return None
    with tempfile.TemporaryDirectory() as path:
        local = Path(path)
        for info in filesystem.get_file_info(fs.FileSelector(checkpoint.path)):
            if info.extension in ("json", "jsonl"):  # the ZeRO shards beside them are large
                fs.copy_files(info.path, str(local / info.base_name), source_filesystem=filesystem)
        return _Resume(checkpoint.path, load_state(local, epochs=epochs), load_history(local))


def _result(done: _Resume, folder: str, *, rows: int, attempts: int) -> TrainResult:
    state = done.state
    return TrainResult(
        checkpoint=done.path,
        weights=posixpath.join(done.path, "net.safetensors"),
        records=posixpath.join(folder, "records"),
        history=done.history,
        seconds=state.seconds,
        images=state.images,
        left_out=rows * state.epoch - state.images,
        attempts=attempts,
    )


def _check_rows(rows: int, train: TrainConfig) -> None:
    if rows < train.batch_size:
        raise ValueError(
            f"{rows} training images are less than one batch of {train.batch_size}: "
            f"lower the stage's batch_size"
        )


def _log_shares(name: str, rows: int, train: TrainConfig, resources: ResourceConfig) -> None:
    left_out, needed = rows % train.batch_size, resources.workers * resources.cpus_per_worker
    if left_out:
        logger.info(
            "%s: each epoch leaves out %d of %d images that would not fill a batch, others in each epoch",
            name,
            left_out,
            rows,
        )
    if needed > ray.cluster_resources().get("CPU", 0):
        logger.warning("%s: %d CPUs are needed, more than the cluster has: waiting for nodes", name, needed)


def _check_world(resume: _Resume, work: Work, resources: ResourceConfig) -> None:
    wrote = resume.state.world_size
    if wrote != resources.workers:
        raise ValueError(
            f"the checkpoint {resume.path} of {work.name} was written by {wrote} workers and ZeRO shards fit "
            f"no other number: set resources.workers to {wrote}, or remove the folder to train the stage anew"
        )


def _raise_if_final(error: TrainingFailedError, *, is_last: bool) -> None:
    """Raise what another attempt would only repeat, as itself; anything else when attempts are used up."""
    for cause in getattr(error, "worker_failures", {}).values():
        original = getattr(cause, "_base_exc", cause)
        if isinstance(original, (ValueError, NonFiniteLossError, UndeclaredSettingError)):
            raise original from error
    if is_last:
        raise error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().partition(". ")[0] if lines else type(error).__name__
