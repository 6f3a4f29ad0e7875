"""Work that tells on which machine it ran; workers import it."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import ray

from tests.distributed.training.train_case import build
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings


def here() -> str:
    """Label of this machine's pool."""
    labels = ray.get_runtime_context().get_node_labels()
    return str(labels.get("uniemo/pool"))


class WhereActor:
    """Adds the pool of the machine to each row."""

    def __init__(self, device: str) -> None:
        self.pool = here()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({"pool": [self.pool] * table.num_rows})


def where(item: int) -> str:
    """A task's answer."""
    return here()


def build_and_tell(settings: StageSettings, *, log: str) -> StageParts:
    """Parts of a tiny stage; each rank leaves the name of its pool."""
    parts = build(settings, log=log)
    rank = ray.train.get_context().get_world_rank()
    (Path(log) / f"pool-of-{rank}").write_text(here())
    return parts


def told(log: Path) -> list[str]:
    """What the ranks have left."""
    return [path.read_text() for path in sorted(log.glob("pool-of-*"))]


def tell_into(log: Path) -> partial[StageParts]:
    """The builder of a stage."""
    return partial(build_and_tell, log=str(log))
