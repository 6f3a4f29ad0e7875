"""What is sent with a job: the same files that Ray sends, and a line for what it cannot send."""

import os
import socket
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from typer.testing import CliRunner

from uniemo_ray.cli import sent_folder
from uniemo_ray.cli.app import app
from uniemo_ray.cli.sent_folder import check_folder, default_rules


def write(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bit of everything, under rules in several places."""
    for name in ("a.py", "data/x.png", "data/keep/y.png", "sub/b.log", "sub/c.py", ".git/config", "z/q.tmp"):
        write(tmp_path / name)
    write(tmp_path / ".gitignore", b"data/\n*.tmp\n")
    write(tmp_path / "sub" / ".rayignore", "*.log\n# größer\n".encode())
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    return tmp_path


def test_the_files_are_those_that_ray_sends(folder):
    found: list[Path] = []
    defaults = get_runtime_env_default_excludes()
    _dir_travel(folder, [_get_excludes(folder, defaults)], found.append, include_gitignore=True)
    ours = set(sent_folder._files(folder, [default_rules(folder)], set()))
    assert ours == {path for path in found if not path.is_dir()}
    assert {path.name for path in ours} >= {"a.py", "c.py", "link.py"}
    check_folder(folder)


@pytest.mark.parametrize("where", ["", "sub"])
def test_pipes_are_named_which_ray_would_wait_for(folder, where):
    os.mkfifo(folder / where / "pipe")
    with pytest.raises(ValueError, match=rf"{folder / where / 'pipe'} cannot be sent .* pipe or a device"):
        check_folder(folder)
    write(folder / where / ".rayignore", b"pipe\n")
    check_folder(folder)


def test_sockets_are_left_out_as_ray_does(folder, monkeypatch):
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.sock")
        check_folder(folder)


@pytest.mark.parametrize("target", [".", "..", "sub"])
def test_links_in_a_circle_are_named(folder, target):
    at = folder / ("sub" if target == "sub" else "") / "around"
    at.symlink_to(folder / target)
    with pytest.raises(ValueError, match=r"around cannot be sent .* a link to a folder that holds it"):
        check_folder(folder)


def test_a_link_to_a_folder_beside_is_no_circle(folder):
    (folder / "also").symlink_to(folder / "sub")
    check_folder(folder)


def test_a_folder_that_no_cluster_takes_is_refused_with_its_largest_parts(folder):
    with write(folder / "sub" / "weights.bin").open("wb") as file:
        file.truncate(101 << 20)
    with write(folder / "model.bin").open("wb") as file:
        file.truncate(7 << 20)
    wanted = r"more than 100 MiB.*\(largest, in MiB: sub 101, model\.bin 7.*\).*\.rayignore"
    with pytest.raises(ValueError, match=wanted) as error:
        check_folder(folder)
    assert "\n" not in str(error.value)
    check_folder(folder, excludes=["/sub/weights.bin"])
    write(folder / ".rayignore", b"*.bin\n")
    check_folder(folder)


def test_many_small_files_count_together(folder, monkeypatch):
    monkeypatch.setattr(sent_folder, "MOST_BYTES", 3 << 20)
    for n in range(4):
        write(folder / "sub" / f"{n}.bin", bytes(1 << 20))
    with pytest.raises(ValueError, match="more than 3 MiB"):
        check_folder(folder)


def test_names_and_rules_that_are_no_utf8_are_named(folder):
    name = os.fsdecode(b"caf\xe9.txt")
    write(folder / name)
    with pytest.raises(
        ValueError, match=r"caf\\xe9\.txt cannot be sent with the job, as its name is no UTF-8"
    ):
        check_folder(folder)
    (folder / name).unlink()
    write(folder / "z" / ".gitignore", b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"z/\.gitignore is no text in UTF-8"):
        check_folder(folder)


def test_it_is_found_before_any_cluster_is_asked(folder):
    os.mkfifo(folder / "pipe")
    result = CliRunner().invoke(app, ["submit", "--working-dir", str(folder), "ingest"])
    assert isinstance(result.exception, ValueError)
    assert "pipe or a device" in str(result.exception)
