"""What the driver of a tiny stage tells its ranks."""

from pathlib import Path
from typing import Any

from pyarrow import fs

from uniemo_ray.config import Config
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.stage_settings import StageSettings


def work_in(folder: Path, *, config: Config | None = None, **changed: Any) -> Work:
    """A stage without data whose records and notes lie in a folder, but for what is given."""
    told: dict[str, Any] = {
        "name": "u",
        "settings": StageSettings(stage="understanding", config=config or Config()),
        "seed": 0,
        "steps_per_epoch": 1,
        "threads": 1,
        "data": ShardRows(pieces=(), columns=(), filesystem=fs.LocalFileSystem()),
        "filesystem": fs.LocalFileSystem(),
        "records": str(folder / "records"),
        "machines": str(folder / "machines"),
    }
    return Work(**(told | changed))
