"""The ranges in pyproject.toml hold for what was tested, and leave out what is known to be broken."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
DECLARED = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS]]
PINNED = dict(
    re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
)
VERSIONS = {canonicalize_name(name): Version(version) for name, version in PINNED.items()}


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_what_was_tested_is_in_the_declared_range(declared: Requirement) -> None:
    assert declared.specifier.contains(VERSIONS[canonicalize_name(declared.name)], prereleases=True)


@pytest.mark.parametrize("version", ["0.18.0", "0.18.9"])
def test_a_deepspeed_that_corrupts_overlapped_gradients_is_left_out(version: str) -> None:
    (deepspeed,) = (one for one in DECLARED if one.name == "deepspeed")
    assert not deepspeed.specifier.contains(version)
