"""An actor of a pool in which one accelerator, or one node, is broken. No accelerator is needed.

A shard is a sleep. Ray is told of accelerators that are not there (`num_gpus=3`) and hands out their numbers.
The folder's file `broken` names the node, and the number on it or `any`.
"""

import time
from pathlib import Path
from typing import Literal

import pyarrow as pa
import ray
import torch

When = Literal["never", "start", "later", "load", "all"]
"""Broken from the start; from the second shard on; at every second load; all of them from the start."""
SOUND_SHARDS = 1


class SickActor:
    """Sleeps for each shard."""

    def __init__(self, when: When, folder: str, seconds: float, device: str) -> None:
        """Load; raises what a lost accelerator makes torch raise."""
        self.when, self.seconds, self.shards = when, seconds, 0
        self.is_broken = when == "all" or (
            when != "never" and _is_here((Path(folder) / "broken").read_text())
        )
        if not self.is_broken:
            return
        loads = Path(folder) / "loads"
        with loads.open("a") as file:
            file.write(".")
        if when in ("start", "all") or (when == "load" and loads.stat().st_size % 2):
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table itself."""
        self.shards += 1
        if self.is_broken and self.when == "later" and self.shards > SOUND_SHARDS:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        time.sleep(self.seconds)
        return table

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        """Nothing: no row is at fault."""
        raise AssertionError(f"a row is blamed: {reason}")


def _is_here(place: str) -> bool:
    """Whether this process runs on that node, with that accelerator."""
    context = ray.get_runtime_context()
    node, accelerator = place.split()
    own = context.get_accelerator_ids()["GPU"]
    return node == context.get_node_id() and (accelerator == "any" or accelerator in own)
