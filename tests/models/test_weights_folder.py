"""Base weights in storage; a file system under a URI stands for any."""

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
