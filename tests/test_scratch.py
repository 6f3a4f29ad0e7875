"""Where temporary files go."""

import tempfile
from pathlib import Path

import pytest

from uniemo_ray.scratch import SCRATCH, scratch_folder


def test_the_system_decides_where_none_is_named(monkeypatch):
    monkeypatch.delenv(SCRATCH, raising=False)
    assert scratch_folder() == Path(tempfile.gettempdir())


def test_the_named_folder_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv(SCRATCH, str(tmp_path / "nvme" / "scratch"))
    assert scratch_folder() == tmp_path / "nvme" / "scratch"
    assert scratch_folder().is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch):
    monkeypatch.setenv(SCRATCH, "/proc/nowhere")
    with pytest.raises(ValueError, match=r"the scratch folder /proc/nowhere cannot be made \(.*\): set"):
        scratch_folder()
