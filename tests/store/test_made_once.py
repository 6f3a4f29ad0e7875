"""Files that all processes of a machine share; folders of weights test the rest (test_weights_folder)."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from uniemo_ray.store.made_once import made_once


def _write(path: Path) -> None:
    time.sleep(0.2)
    path.write_text(str(os.getpid()))
    with (path.parent / "makers").open("a") as makers:
        makers.write("x")


def _ask(target: Path) -> str:
    return made_once(target, _write).read_text()


def test_one_of_several_processes_makes_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        read = pool.map(_ask, [tmp_path / "file"] * 3)
    assert len(set(read)) == 1
    assert (tmp_path / "makers").read_text() == "x"


def test_what_a_dead_process_left_is_made_again(tmp_path):
    def die(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "file", die)
    assert not (tmp_path / "file").exists()
    made_once(tmp_path / "file", lambda path: path.write_text("whole"))
    assert (tmp_path / "file").read_text() == "whole"
    assert not list(tmp_path.glob("*.part"))
