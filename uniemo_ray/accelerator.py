"""What an accelerator's errors mean: out of memory, or a process that can never use it again."""

import re
from collections.abc import Iterator

import torch

_OUT_OF_MEMORY = re.compile(r"\b(CUDA|HIP|XPU)\b.*out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE)
_LOST = re.compile(
    r"\b(CUDA|HIP|XPU|cuDNN|MIOpen|cuBLAS|NCCL) (driver )?(runtime )?error\b"
    r"|\b(CUDNN|CUBLAS|CUSOLVER|HIPBLAS)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR|NOT_INITIALIZED)"
    r"|illegal memory access|illegal instruction|misaligned address|device-side assert|uncorrectable ECC"
    r"|unspecified launch failure|launch timed out|\bXid\b|fallen off the bus|GPU is lost"
    r"|no CUDA-capable device|No (CUDA|HIP) GPUs are available|CUDA-capable device\(s\) is/are busy"
    r"|NVIDIA driver|CUDA driver|driver/library version mismatch|CUDA unknown error",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the accelerator had too little memory: the process can go on with less."""
    return any(
        isinstance(each, torch.OutOfMemoryError)
        or (isinstance(each, RuntimeError) and _OUT_OF_MEMORY.search(str(each)) is not None)
        for each in causes(error)
    )


def is_lost(error: BaseException) -> bool:
    """Whether the process cannot use its accelerator any more, whatever it computes next.

    CUDA reports an illegal access, a failed assertion or a hardware fault at every later call too.
    Whatever the runtime reports, out of memory apart, counts as such: kernels run behind the program, so an
    error may belong to an earlier one.
    """
    return not is_out_of_memory(error) and any(
        isinstance(each, torch.AcceleratorError)
        or (isinstance(each, RuntimeError) and _LOST.search(str(each)) is not None)
        for each in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or instead of."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
