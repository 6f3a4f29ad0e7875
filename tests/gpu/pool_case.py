"""Actors of a pool that say where they run, or that lose their accelerator; Ray's workers import them."""

import os
import time
from pathlib import Path

import pyarrow as pa

from tests.gpu.device import identity

POISONED = "poisoned"


class Where:
    """Says where a layer of this actor lies."""

    def __init__(self, device: str) -> None:
        import torch

        self.layer = torch.nn.Linear(4, 4).to(device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Device, GPU and process for each row."""
        said = {"device": self.layer.weight.device.type, "gpu": identity(), "process": os.getpid()}
        time.sleep(0.5)  # so that each actor gets a shard
        return pa.table({name: [value] * table.num_rows for name, value in said.items()})


class Poisoned:
    """Doubles column x; the first shard of the first process makes its accelerator useless."""

    def __init__(self, folder: str, device: str) -> None:
        self.marker, self.device = Path(folder) / POISONED, device
        self.is_poisoned = False

    def __call__(self, table: pa.Table) -> pa.Table:
        """Column x, doubled on the device, and the process that did it."""
        import torch

        if not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            self._poison()
        if self.is_poisoned and self.device == "cpu":
            self._poison()
        doubled = 2 * torch.tensor(table["x"].to_pylist(), device=self.device)
        return pa.table({"x": doubled.tolist(), "process": [os.getpid()] * table.num_rows})

    def _poison(self) -> None:
        """An assertion that fails in a kernel: from then on CUDA refuses everything. A CPU says so only."""
        import torch

        self.is_poisoned = True
        if self.device == "cpu":
            raise RuntimeError("CUDA error: device-side assert triggered")
        row = torch.zeros(1, device=self.device)[torch.tensor([7], device=self.device)]
        row.sum().item()
