"""What machines lack is said before anything starts, one line for each fault."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from uniemo_ray import machine_check
from uniemo_ray.config import Config
from uniemo_ray.distributed.machines import Machine, judge_machines
from uniemo_ray.machine_check import Needs, faults_here, needs_of
from uniemo_ray.scratch import SCRATCH

HERE = Needs(use_gpu=False, bf16=False, paths=())
GPU = Needs(use_gpu=True, bf16=True, paths=())


def config(tmp_path: Path, **resources: object) -> Config:
    return Config(run=str(tmp_path), resources={"workers": 1, **resources})


def machine(number: int, cpus: float = 8, gpus: float = 1) -> Machine:
    return Machine(f"n{number}", f"host-{number}", cpus, gpus)


def test_each_fault_is_a_line_that_names_the_machine(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(machines: Sequence[Machine], needs: Needs) -> dict[str, list[str] | None]:
        asked.extend(each.node for each in machines)
        assert needs.use_gpu
        return {"n0": [], "n1": ["has an old driver", "has 0.1 GB free"], "n2": None}

    machines = [machine(0), machine(1), machine(2), machine(3, gpus=0), machine(4, cpus=2)]
    with pytest.raises(ValueError, match="host-1") as error:
        judge_machines(machines, config(tmp_path, use_gpu=True, cpus_per_worker=4), ask=ask)
    assert str(error.value).splitlines() == ["host-1 has an old driver", "host-1 has 0.1 GB free"]
    assert asked == ["n0", "n1", "n2"]  # no worker fits on the others


def test_more_cpus_than_any_machine_has_is_said_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(*_: object) -> dict[str, list[str] | None]:
        raise AssertionError("nobody to ask")

    with caplog.at_level(logging.WARNING):
        judge_machines(
            [machine(0, cpus=2), machine(1, cpus=4)], config(tmp_path, cpus_per_worker=16), ask=ask
        )
    (record,) = caplog.records
    assert "no machine of the cluster has the 16 CPUs" in record.getMessage()
    assert "host-1, has 4 CPUs" in record.getMessage()


def test_a_tracker_whose_package_is_missing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(tmp_path).model_copy(update={"tracking": ("tensorboard", "wandb")})
    needs = needs_of(asked)
    monkeypatch.setattr(machine_check, "find_spec", lambda name: None if name == "wandb" else name)
    (fault,) = faults_here(needs)
    assert fault == (
        "has no package wandb, which the setting tracking names: pip install wandb, or leave it out"
    )

    def ask(machines: Sequence[Machine], needs: Needs) -> dict[str, list[str] | None]:
        return {each.node: faults_here(needs) for each in machines}

    with pytest.raises(ValueError, match="host-1 has no package wandb"):
        judge_machines([machine(1)], asked, ask=ask)


def test_folders_are_asked_for_where_the_driver_sees_them(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    known = Config(
        run=str(tmp_path),
        evaluation={"weights_dir": str(tmp_path / "weights")},
        encoder={"clip": "s3://bucket/clip"},
        resources={"workers": 1},
    )
    assert dict(needs_of(known).paths) == {
        "evaluation.weights_dir": str(tmp_path / "weights"),
        "run": str(tmp_path),
    }
    data = Config(run=str(tmp_path), data={"kind": "emoset", "root": str(tmp_path)}, resources={"workers": 1})
    assert "data.root" in dict(needs_of(data).paths)
    assert "data.root" not in dict(needs_of(data, is_ingested=True).paths)
    lost = str(tmp_path / "away")
    (fault,) = faults_here(Needs(use_gpu=False, bf16=False, paths=(("data.root", lost),)))
    assert fault.startswith(f"does not see data.root {lost}")
    assert faults_here(Needs(use_gpu=False, bf16=False, paths=(("run", str(tmp_path)),))) == []


def test_a_full_or_forbidden_scratch_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    assert faults_here(HERE) == []
    monkeypatch.setattr(machine_check, "LEAST_SCRATCH_GB", 1e9)
    (fault,) = faults_here(HERE)
    assert "GB free in its scratch folder" in fault
    (tmp_path / "file").touch()
    monkeypatch.setenv(SCRATCH, str(tmp_path / "file" / "sub"))
    (fault,) = faults_here(HERE)
    assert "cannot be made" in fault


@pytest.mark.parametrize(
    ("cuda", "driver", "words"),
    [
        (None, 0, "built without CUDA"),
        ("13.0", 0, "no usable NVIDIA driver"),
        ("13.0", 12040, r"NVIDIA driver for CUDA 12\.4, and torch .* needs CUDA 13\.0"),
        ("12.4", 13000, "torch finds no GPU"),
    ],
)
def test_why_torch_has_no_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, driver: int, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)
    (fault,) = faults_here(GPU)
    assert re.search(words, fault)


def test_a_gpu_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    (fault,) = faults_here(GPU)
    assert fault.startswith("has a Tesla T4, which has no bf16")
    assert faults_here(Needs(use_gpu=True, bf16=False, paths=())) == []
