"""Which machines train, and which of them are gone. It tells a lost machine from a failed worker.

When a machine vanishes, its worker says nothing. The others report that a connection was closed, as they do
after a crash, and Ray itself takes more than ten seconds to notice. So the driver asks the machines.
"""

import posixpath

import ray
import ray.train
from pyarrow import fs
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uniemo_ray.distributed.training.work import Work

ANSWER_S = 60.0
"""Time for a machine to answer, in seconds. Ray needs 15 to notice that one is gone."""


def note_machine(work: Work) -> None:
    """Leave a note of the machine that this rank runs on, for the driver."""
    rank = ray.train.get_context().get_world_rank()
    work.filesystem.create_dir(work.machines, recursive=True)
    with work.filesystem.open_output_stream(posixpath.join(work.machines, f"rank-{rank:05d}")) as file:
        file.write(ray.get_runtime_context().get_node_id().encode())


def forget_machines(work: Work) -> None:
    """Remove the notes of an attempt."""
    if work.filesystem.get_file_info(work.machines).type == fs.FileType.Directory:
        work.filesystem.delete_dir(work.machines)


def lost_machines(work: Work, *, timeout_s: float = ANSWER_S) -> list[str]:
    """Ids of those machines of the attempt that no longer answer, or take no more work."""
    asked = {_answer_from(node): node for node in _machines(work)}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
    return sorted(asked[answer] for answer in [*silent, *(one for one in answered if not _is_good(one))])


def _machines(work: Work) -> set[str]:
    selector = fs.FileSelector(work.machines, allow_not_found=True)
    nodes = set()
    for info in work.filesystem.get_file_info(selector):
        with work.filesystem.open_input_stream(info.path) as file:
            nodes.add(file.read().decode())
    return nodes


def _answer_from(node: str) -> "ray.ObjectRef[bool]":
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(_here).options(scheduling_strategy=strategy)
    answer: ray.ObjectRef[bool] = task.remote()
    return answer


def _here() -> bool:
    return True


def _is_good(answer: "ray.ObjectRef[bool]") -> bool:
    try:
        return bool(ray.get(answer))
    except RayError:
        return False
