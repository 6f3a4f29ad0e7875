"""What errors of an accelerator mean, without one."""

import pytest
import torch

from uniemo_ray.accelerator import is_lost, is_out_of_memory


def caused_by(cause: Exception) -> Exception:
    error = OSError("row 3 cannot be made")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA driver error: unknown error"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
        RuntimeError("HIP error: invalid device function"),
        RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled system error"),
        RuntimeError("no CUDA-capable device is detected"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Found no NVIDIA driver on your system."),
        RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
        RuntimeError("Unexpected error from cudaGetDeviceCount(). CUDA unknown error - this may be due to"),
        RuntimeError("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."),
        torch.AcceleratorError("invalid resource handle"),
        caused_by(torch.AcceleratorError("CUDA error: unspecified launch failure")),
    ],
)
def test_a_process_that_cannot_use_its_accelerator_again(error: Exception) -> None:
    assert is_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu"),
        RuntimeError("Attempting to deserialize object on a CUDA device but is_available() is False"),
        ValueError("CUDA error in a name"),
        OSError("no space left on device"),
        MemoryError(),
    ],
)
def test_errors_that_are_none_of_the_accelerator(error: Exception) -> None:
    assert not is_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        caused_by(torch.OutOfMemoryError("HIP out of memory.")),
    ],
)
def test_out_of_memory_loses_nothing(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_lost(error)
