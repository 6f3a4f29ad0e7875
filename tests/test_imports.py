"""What an import may load, each in a fresh interpreter."""

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "deepspeed", "diffusers", "transformers", "open_clip", "pyarrow", "matplotlib")


def loaded_after(statement: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(set({names!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_probe_sees_a_heavy_import():
    assert loaded_after("import pyarrow") == {"pyarrow"}


@pytest.mark.parametrize(
    "module", ["uniemo_ray", "uniemo_ray.config", "uniemo_ray.emotions", "uniemo_ray.cli"]
)
def test_light_modules_load_nothing_heavy(module):
    assert loaded_after(f"import {module}") == set()


CORE = (
    "models.uniemo",
    "losses",
    "feedback.verdicts",
    "feedback.rank_filter",
    "metrics.accuracy",
    "data.emoset",
    "inference.generator",
    "sizing.plan",
    "fetch.fetch",
)


def test_the_core_knows_no_ray():
    statements = (
        f"import uniemo_ray.{module}; assert not {{'ray', 'deepspeed'}} & set(sys.modules), '{module}'"
        for module in CORE
    )
    assert loaded_after("\n".join(["import sys", *statements]), ("ray", "deepspeed")) == set()


def test_understanding_does_without_diffusion_libraries():
    names = ("diffusers", "peft", "deepspeed", "scipy")
    assert loaded_after("import uniemo_ray.service.deployments", names) == set()


def test_the_http_interface_knows_no_ray():
    assert "ray" not in loaded_after("import uniemo_ray.service.api")


def test_help_is_instant():
    # Processor time, not the clock: other processes may keep the machine busy.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "uniemo_ray.cli", "--help"], capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert b"uniemo submit" in done.stdout
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5
