"""A training stage on a cluster: Ray Train workers that read shards themselves, DeepSpeed inside.

Ray Train restarts nothing by itself here: restarts are a loop of the driver, and a killed driver that is
started again simply enters the same loop.
"""

import logging
import os
import posixpath
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train import TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from uniemo_ray.config import ResourceConfig, TrainConfig
from uniemo_ray.distributed.training.attempts import Restarts
from uniemo_ray.distributed.training.cluster_decode import check_spare_cpu
from uniemo_ray.distributed.training.entry import run_worker
from uniemo_ray.distributed.training.machines import forget_machines
from uniemo_ray.distributed.training.resume import Resume, last_checkpoint, remove_orphans
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.distributed.waiting import waiting_shown
from uniemo_ray.pools import find_pool
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.parts import StageBuilder
from uniemo_ray.training.schedule import steps_per_epoch
from uniemo_ray.training.stage_settings import StageSettings

logger = logging.getLogger(__name__)

PROCESS_GROUP_TIMEOUT_S = 600
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Ray Train's wait for machines before it asks again."""
ELASTIC_S = 30
"""With bounds it learns that way that fewer machines are left."""
PATIENT_S = 1800
"""A fixed number waits for all: machines with GPUs take minutes to start."""


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
        PreemptedError: more than `resources.max_preemptions` machines were taken away, or no checkpoint came
            between several of them.
    """
    config, train, resources = settings.config, settings.train, settings.config.resources
    filesystem, root = open_store(storage).arrow()
    folder = posixpath.join(root, name)
    rows = data.rows
    done = last_checkpoint(filesystem, folder, epochs=train.epochs)
    if done is not None and done.state.is_complete(train.epochs):
        return _result(done, folder, rows=rows, attempts=0)
    if train.decode == "cluster":
        check_spare_cpu(config, "stage1" if settings.stage == "understanding" else "stage2")
    _check_rows(rows, train)
    _log_share(name, rows, train)
    work = Work(
        name=name,
        settings=settings,
        build=build,
        seed=config.seed,
        steps_per_epoch=steps_per_epoch(rows, batch_size=train.batch_size),
        threads=find_pool(config, "train").cpus,
        data=data,
        val=val,
        filesystem=filesystem,
        records=posixpath.join(folder, "records"),
        machines=posixpath.join(folder, "machines"),
    )
    attempts = _train(work, root, resources)
    done = last_checkpoint(filesystem, folder, epochs=train.epochs)
    if done is None or not done.state.is_complete(train.epochs):
        raise RuntimeError(f"{name} ended without its last checkpoint in {folder}")
    return _result(done, folder, rows=rows, attempts=attempts)


def _train(work: Work, root: str, resources: ResourceConfig) -> int:
    """Run attempts until the stage is complete; their number."""
    folder, epochs = posixpath.join(root, work.name), work.settings.train.epochs
    restarts, attempt = Restarts(work.name, resources), 0
    resume = last_checkpoint(work.filesystem, folder, epochs=epochs)
    while resume is None or not resume.state.is_complete(epochs):
        attempt += 1
        restarts.step = step = resume.state.step if resume else 0
        if step or attempt > 1:
            logger.info("%s: attempt %d, from step %d of %d", work.name, attempt, step, work.total_steps)
        forget_machines(work)
        remove_orphans(work.filesystem, folder)
        with waiting_shown(work.name, find_pool(work.settings.config, "train")):
            error = _fit(work, root, resources)
        resume = last_checkpoint(work.filesystem, folder, epochs=epochs)
        if resume is None or not resume.state.is_complete(epochs):
            restarts.allow_after(error, work, step=resume.state.step if resume else 0)
    forget_machines(work)
    return attempt


def _fit(work: Work, root: str, resources: ResourceConfig) -> TrainingFailedError | None:
    """One attempt; what has ended it, or None if its ranks ended by themselves."""
    is_fixed = isinstance(resources.workers, int)
    os.environ.setdefault(START_TIMEOUT, str(PATIENT_S if is_fixed else ELASTIC_S))
    pool = find_pool(work.settings.config, "train")
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"work": work},
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # as its label_selector
            num_workers=_worker_count(resources),  # type: ignore[arg-type]  # declared as that of Train v1
            use_gpu=bool(pool.gpus),
            resources_per_worker={key: amount for key, amount in pool.needs.items() if amount},
            label_selector=dict(pool.labels) if pool.labels else None,
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
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None


def _worker_count(resources: ResourceConfig) -> int | tuple[int, int]:
    """The number as Ray Train takes it: bounds make it elastic."""
    if isinstance(resources.workers, int):
        return resources.workers
    return resources.least_workers, resources.most_workers


def _result(done: Resume, folder: str, *, rows: int, attempts: int) -> TrainResult:
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


def _log_share(name: str, rows: int, train: TrainConfig) -> None:
    if left_out := rows % train.batch_size:
        logger.info(
            "%s: each epoch leaves out %d of %d images that would not fill a batch, others in each epoch",
            name,
            left_out,
            rows,
        )
