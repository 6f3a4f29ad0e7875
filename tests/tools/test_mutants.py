"""Mutation testing: what is measured, and how results are counted."""

import json
import tomllib
from pathlib import Path

import pytest

from tools.mutants import ROOT, TESTS, Result, prepare, read, table


@pytest.mark.parametrize("file", TESTS)
def test_the_named_files_and_tests_exist(file: str) -> None:
    assert (ROOT / file).is_file()
    assert [test for test in TESTS[file] if not (ROOT / test).is_file()] == []


def test_mutmut_gets_one_file_and_the_tests_that_concern_it(tmp_path: Path) -> None:
    file = "uniemo_ray/losses.py"
    work = prepare(file, folder=tmp_path)
    (work / "left over").touch()
    assert prepare(file, folder=tmp_path) == work
    assert {path.name for path in work.iterdir()} == {"uniemo_ray", "tests", "pyproject.toml"}
    assert (work / file).samefile(ROOT / file)
    settings = tomllib.loads((work / "pyproject.toml").read_text())["tool"]["mutmut"]
    assert settings["only_mutate"] == [file]
    _, markers, *tests = settings["pytest_add_cli_args_test_selection"]
    assert tests == list(TESTS[file])
    assert {"not slow", "not ray"} <= set(markers.split(" and "))


def test_a_mutant_counts_as_killed_when_something_was_noticed(tmp_path: Path) -> None:
    codes = {"failed": 1, "survived": 0, "no tests": 33, "too slow": 36, "crashed": -11, "not run": None}
    meta = tmp_path / "mutants" / "uniemo_ray" / "losses.py.meta"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"exit_code_by_key": codes}))
    result = read(tmp_path, "uniemo_ray/losses.py", seconds=12.4)
    assert result.survivors == ("survived", "no tests", "not run")
    assert result.percent == pytest.approx(50)
    assert table([result]).splitlines()[-1] == "| `uniemo_ray/losses.py` | 6 | 3 (50 %) | 3 | 12 |"


def test_a_file_without_mutants_is_whole() -> None:
    assert Result("a.py", 0, (), 1.0).percent == 100
