"""Which machines train, and which of them are gone. It tells a lost machine from a failed worker.

When a machine vanishes, its worker says nothing. The others report that a connection was closed, as they do
after a crash, and Ray itself takes more than ten seconds to notice. So the driver asks the machines.
"""

import posixpath

import ray
import ray.train
from pyarrow import fs

from uniemo_ray.distributed.ask_nodes import ask_nodes
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
    answers = ask_nodes(_here, _machines(work), timeout_s=timeout_s)
    return sorted(node for node, answer in answers.items() if answer is not True)


def _machines(work: Work) -> set[str]:
    selector = fs.FileSelector(work.machines, allow_not_found=True)
    nodes = set()
    for info in work.filesystem.get_file_info(selector):
        with work.filesystem.open_input_stream(info.path) as file:
            nodes.add(file.read().decode())
    return nodes


def _here() -> bool:
    return True
