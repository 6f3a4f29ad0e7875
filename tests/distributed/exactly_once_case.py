"""A driver of a cheap generation, as a process of its own: `exactly_once_case.py RUN '{"n": 12}'`.

Prints `finished: STATUS` at its end, or one line with the error.
"""

import hashlib
import json
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
import ray.data

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper
from uniemo_ray.distributed.shards.report import ShardTask
from uniemo_ray.distributed.shards.table_actor import ActorFactory
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.pools import Pool, Prices
from uniemo_ray.store.base import Store
from uniemo_ray.store.faults import VARIABLE
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import committed
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput

IMAGES = pa.schema(
    [("image_id", pa.string()), ("emotion", pa.string()), ("image", pa.binary()), ("reason", pa.string())]
)


class CheapPainter:
    """Bytes that the plan row alone determines; one image id may kill the process, another raise."""

    def __init__(self, delay_s: float, deadly: str, raising: str, journal: str, device: str) -> None:
        self.delay_s, self.deadly, self.raising = delay_s, deadly, raising
        self.journal = Path(journal) if journal else None

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(f"{table['image_id'][0].as_py()} {time.time()}\n")
        time.sleep(self.delay_s)
        rows = []
        for row in table.to_pylist():
            if row["image_id"] == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if row["image_id"] == self.raising:
                raise RuntimeError("cannot be painted\nin two lines")
            image = hashlib.sha256(f"{row['seed']}".encode()).digest() * 20
            rows.append({**row, "image": image, "reason": None})
        return pa.Table.from_pylist(rows, schema=IMAGES)

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        rows = [{**row, "image": None, "reason": reason} for row in table.to_pylist()]
        return pa.Table.from_pylist(rows, schema=IMAGES)


def plan(per_emotion: int) -> PlannedImages:
    """Eight images for each of `per_emotion`."""
    return PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=per_emotion,
        seed=1,
        model="cheap",
        diffusion=DiffusionConfig(),
        generation=GenerationConfig(),
    )


def generate(
    store: Store,
    *,
    n: int,
    rows: int = 4,
    actors: int = 2,
    retries: int = 1,
    delay_s: float = 0.0,
    deadly: str = "",
    raising: str = "",
    journal: str = "",
    order: int | None = None,
) -> StepOutput:
    """Plan and map; the status tells failures."""
    commit_plan(plan(n), store, rows_per_shard=rows)
    actor = partial(CheapPainter, delay_s=delay_s, deadly=deadly, raising=raising, journal=journal)
    if order is not None:
        map_shuffled(store, actor, seed=order, actors=actors)
    made = map_shards(
        store,
        {IMAGES_FOLDER: PLAN_FOLDER},
        target=store,
        actor=actor,
        plan_hash=None,
        pool=Pool(actors=actors, memory_gb=0.1, prices=Prices(default=1.0)),
        retries=retries,
    )
    failed = sum(sum(e.failed.values()) for e in committed(store, f"{IMAGES_FOLDER}/").values())
    status = f"finished with {failed} failures" if failed else "finished"
    return StepOutput(outputs={"rows": made[IMAGES_FOLDER]}, status=status)


def map_shuffled(store: Store, actor: ActorFactory, *, seed: int, actors: int) -> None:
    """The same actors over the shards in another order and in blocks of several, as Ray might cut them."""
    work = MapWork(actor, "cpu", store, store, retries=0, label=IMAGES_FOLDER)
    tasks = [
        ShardTask(
            entry.key,
            entry.bytes,
            entry.sha256,
            name.replace(PLAN_FOLDER, IMAGES_FOLDER),
            entry.plan_hash,
            attempt=1,
            is_last=True,
        )._asdict()
        for name, entry in committed(store, f"{PLAN_FOLDER}/").items()
    ]
    rows = ray.data.from_items(tasks, override_num_blocks=5).random_shuffle(seed=seed)
    rows = rows.materialize()  # the actors may take all CPUs
    pool = ray.data.ActorPoolStrategy(size=actors)
    mapper = rows.map_batches(ShardMapper, fn_constructor_args=(work,), compute=pool, batch_size=2)
    reports = mapper.take_all()
    assert [report["kind"] for report in reports] == [""] * len(tasks)


def arm() -> dict[str, object]:
    """Ray's environment for the workers: what is theirs, and a fault of theirs, aimed at this driver too."""
    variables: dict[str, str] = json.loads(os.environ.get("WORKER_ENV", "{}"))
    fault = json.loads(os.environ.get("WORKER_FAULT", "null"))
    if fault is not None:
        if fault.pop("driver", False):
            fault["also"] = os.getpid()
        variables[VARIABLE] = json.dumps(fault)
    return {"env_vars": variables}


def main() -> None:
    """Submit once."""
    logging.basicConfig(level=logging.INFO)
    settings = json.loads(sys.argv[2])
    run = RunFolder.open(sys.argv[1], settings, ttl_s=settings.pop("ttl_s", 60.0))
    shown = {key: settings[key] for key in ("n", "rows") if key in settings}
    pipeline = Pipeline(run)

    def work(context: StepContext) -> StepOutput:
        return generate(context.artefacts, **settings)

    pipeline.step("generate", run=work, settings=shown, grows_by=["n"])
    with run.locked():
        print("locked", flush=True)
        ray.init(log_to_driver=False, runtime_env=arm())
        result = pipeline.run()[0]
    print(f"{result.record.status} (skipped: {result.is_skipped})", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {type(error).__name__}: {error}")
