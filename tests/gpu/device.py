"""What the tests of this folder run on: GPUs, or with `UNIEMO_DEVICE=cpu` a CPU with everything small."""

import os

from benchmarks.device import chosen_device

DEVICE = chosen_device()
IS_SMALL = DEVICE == "cpu"


def cards() -> int:
    """Devices that a test uses: one or two GPUs; a CPU stands for two."""
    import torch

    return 2 if IS_SMALL else min(2, torch.cuda.device_count())


def identity() -> str:
    """A name of this process' current GPU that no other GPU has; on a CPU that of the process."""
    import torch

    return f"process {os.getpid()}" if IS_SMALL else str(torch.cuda.get_device_properties("cuda").uuid)
