"""Base weights in storage; a file system under a URI stands for any."""

import errno
import fcntl
from pathlib import Path

import pytest

from uniemo_ray.models import weights_folder
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.store.local import LocalStore

URI = "s3://bucket/weights"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is read as if it lay in a bucket."""
    folder = tmp_path / "stored"
    folder.mkdir()
    monkeypatch.setattr(weights_folder, "open_store", lambda _: LocalStore(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_local_folder_is_what_it_is(stored):
    assert local_folder("some/where") == Path("some/where")


def test_storage_is_copied_once_and_again_when_it_has_changed(stored, monkeypatch):
    (stored / "unet").mkdir()
    (stored / "unet" / "config.json").write_text("1")
    first = local_folder(URI)
    assert (first / "unet" / "config.json").read_text() == "1"
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "download_dir", None)
        assert local_folder(URI) == first
    (stored / "unet" / "config.json").write_text("22")
    second = local_folder(URI)
    assert (second / "unet" / "config.json").read_text() == "22"
    assert (first / "unet" / "config.json").read_text() == "1"


def test_a_copy_that_was_cut_short_is_made_again(stored, monkeypatch):
    (stored / "config.json").write_text("1")

    def half(_store: LocalStore, _folder: str, target: Path) -> None:
        target.mkdir()
        (target / "stray").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "download_dir", half)
        with pytest.raises(KeyboardInterrupt):
            local_folder(URI)
    assert [path.name for path in local_folder(URI).iterdir()] == ["config.json"]


def test_an_empty_place_is_one_line(stored):
    with pytest.raises(ValueError, match="s3://bucket/weights holds no files: give a folder"):
        local_folder(URI)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_cache_on_a_file_system_without_locks_works(stored, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (stored / "config.json").write_text("1")
    found = local_folder(URI)
    assert (found / "config.json").read_text() == "1"
    assert local_folder(URI) == found
    assert [path.name for path in found.parent.iterdir() if path.is_dir()] == [found.name]


def test_without_locks_the_first_copy_counts(stored, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (stored / "config.json").write_text("1")
    original = LocalStore.download_dir

    def slow(store: LocalStore, folder: str, target: Path) -> None:
        original(store, folder, target)
        monkeypatch.setattr(LocalStore, "download_dir", original)
        local_folder(URI)  # another process, which is done first

    monkeypatch.setattr(LocalStore, "download_dir", slow)
    found = local_folder(URI)
    assert (found / "config.json").read_text() == "1"
    assert [path.name for path in found.parent.iterdir() if path.is_dir()] == [found.name]


def test_a_user_without_a_home_folder_is_told_what_to_set(stored, monkeypatch):
    (stored / "config.json").write_text("1")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    with pytest.raises(ValueError, match="this user has no home folder: set XDG_CACHE_HOME"):
        local_folder(URI)


def test_a_cache_that_cannot_be_written_is_named(stored, monkeypatch):
    (stored / "config.json").write_text("1")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(ValueError, match=r"copied to /proc/nowhere/.*, which fails .*: set XDG_CACHE_HOME"):
        local_folder(URI)
