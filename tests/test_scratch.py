"""Where temporary files go."""

import tempfile
from pathlib import Path

import pytest

from uniemo_ray.config import Config
from uniemo_ray.distributed.session import worker_environment
from uniemo_ray.scratch import SCRATCH, prepare_worker, scratch_folder


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


def test_a_worker_puts_everything_temporary_there(monkeypatch, tmp_path):
    """Python passes over a TMPDIR that is missing, so the folder is made before anything asks for it."""
    folder = tmp_path / "nvme" / "scratch"
    environment = worker_environment(str(folder))
    for name, value in environment["env_vars"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert (
        environment["worker_process_setup_hook"] == f"{prepare_worker.__module__}.{prepare_worker.__name__}"
    )
    prepare_worker()
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == folder
    monkeypatch.setattr(tempfile, "tempdir", None)  # other tests choose for themselves


def test_without_the_setting_nothing_is_sent_to_workers():
    assert worker_environment(None) is None
    with pytest.raises(ValueError, match=r"resources.scratch.*\n?.*expected an absolute path"):
        Config(resources={"scratch": "here"})
