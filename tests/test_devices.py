"""What is known of a GPU, without one: switches and files."""

import pytest
import torch

from uniemo_ray.devices import describe_device, driver_version, set_tf32


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("is_on", [True, False])
def test_both_switches_follow_the_setting_on_a_gpu_alone(is_on: bool, monkeypatch) -> None:
    before = switches()
    set_tf32(is_on)
    assert switches() == before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        set_tf32(is_on)
        assert switches() == (is_on, is_on)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_cpu_says_nothing_more() -> None:
    assert describe_device("cpu") == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129  Thu Oct", "535.129"),
        ("nothing", None),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path, text: str, version: str | None) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "none") is None
