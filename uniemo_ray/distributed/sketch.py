"""EmoSketch drawn on a cluster; light, because every worker that draws imports it."""

import fcntl
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uniemo_ray.data.emosketch.folder import SketchSettings
from uniemo_ray.data.emosketch.write import Chunks, Draw, Run, write_sketch
from uniemo_ray.scratch import SCRATCH, scratch_folder
from uniemo_ray.seeds import hash_seed


def temporary_folder() -> Path:
    """Where every machine keeps what it can make again; the same path on all of them.

    That is `resources.scratch`, or /tmp whatever TMPDIR says there.
    """
    return scratch_folder() if os.environ.get(SCRATCH) else Path("/tmp")


@dataclass(frozen=True)
class SketchFolder:
    """An EmoSketch that every machine can draw for itself: it depends on its settings alone."""

    root: Path
    settings: SketchSettings

    def draw(self, run: Run | None = None) -> None:
        """Draw it on this machine, unless it is there; of several processes one draws and the others wait.

        Args:
            run: what runs the drawing, as in `write_sketch`.
        """
        lock = temporary_folder() / f"uniemo-sketch-{hash_seed(self.root):x}.lock"
        with lock.open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            write_sketch(self.root, **asdict(self.settings), run=run)


def draw_here(draw: Draw, chunks: Chunks) -> list[int]:
    """Draw in tasks on the driver's own machine, whose disk the folder is on; a `run` of `write_sketch`.

    Processes of the driver's own would import all that the job has imported, which takes longer than to draw.
    """
    node = ray.get_runtime_context().get_node_id()
    if not _has_cpu(node):  # the head of many clusters runs no tasks
        return [draw(*chunk) for chunk in chunks]
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_call).options(scheduling_strategy=here)
    found: list[int] = ray.get([task.remote(draw, *chunk) for chunk in chunks])
    return found


def _has_cpu(node: str) -> bool:
    return any(one["NodeID"] == node and one["Resources"].get("CPU", 0) >= 1 for one in ray.nodes())


def _call(draw: Draw, split: str, indices: range) -> int:
    return draw(split, indices)
