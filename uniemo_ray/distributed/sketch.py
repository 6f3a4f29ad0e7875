"""EmoSketch drawn by Ray tasks; light, because every worker that draws imports it."""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uniemo_ray.data.emosketch.write import Chunks, Draw


def draw_here(draw: Draw, chunks: Chunks) -> list[int]:
    """Draw on the driver's own machine, whose disk the folder is on; a `run` of `write_sketch`.

    Processes of the driver's own would import all that the job has imported, which takes longer than to draw.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    task = ray.remote(_call).options(scheduling_strategy=here)
    found: list[int] = ray.get([task.remote(draw, *chunk) for chunk in chunks])
    return found


def _call(draw: Draw, split: str, indices: range) -> int:
    return draw(split, indices)
