"""Folders behind symbolic links."""

from pathlib import Path

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.listing import list_files
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.samples import Sample, read_sample


def read(root: Path) -> DataFolder:
    return open_folder(root, DataConfig(kind="fi", root=str(root)))


def ids(folder: DataFolder) -> set[str]:
    return {entry.image_id for split in ("train", "val", "test") for entry in folder.entries(split)}


def test_a_folder_of_a_class_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    root = layouts.fi(tmp_path / "set", 3)
    layouts.put(tmp_path / "elsewhere" / "deep" / "far.jpg")
    (root / "awe" / "more").symlink_to(tmp_path / "elsewhere")
    folder = read(root)
    assert "awe/more/deep/far.jpg" in ids(folder)
    (entry,) = [
        e for e in folder.entries("train") + folder.entries("test") + folder.entries("val") if "far" in e[0]
    ]
    assert isinstance(read_sample(root, entry, max_pixels=10_000), Sample)
    assert not any("links" in note for note in folder.notes)


def test_a_class_folder_and_the_set_itself_may_be_links(tmp_path: Path) -> None:
    layouts.fi(tmp_path / "real", 3)
    (tmp_path / "real" / "awe").rename(tmp_path / "awe")
    (tmp_path / "real" / "Awe").symlink_to(tmp_path / "awe")
    (tmp_path / "set").symlink_to(tmp_path / "real")
    assert len(ids(read(tmp_path / "set"))) == 24


def test_links_in_a_circle_are_counted_and_named(tmp_path: Path) -> None:
    root = layouts.fi(tmp_path, 3)
    (root / "awe" / "up").symlink_to(root)
    (root / "awe" / "self").symlink_to(root / "awe")
    (root / "awe" / "sub").mkdir()
    layouts.put(root / "awe" / "sub" / "a.jpg")
    (root / "awe" / "again").symlink_to(root / "awe" / "sub")
    folder = read(root)
    assert len(ids(folder)) == 25
    assert "awe/sub/a.jpg" in ids(folder)
    assert folder.notes[-1] == (
        "3 links lead to folders that are read already and are not followed (awe/again for example)"
    )


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        layouts.put(tmp_path / here / f"{here}.jpg")
        (tmp_path / here / "other").symlink_to(tmp_path / there)
    files = list_files(tmp_path / "a")
    assert files.images == ["a.jpg", "other/b.jpg"]
    assert files.loops == ["other/other"]


def test_a_link_to_nothing_is_named_as_any_other_file(tmp_path: Path) -> None:
    root = layouts.fi(tmp_path, 3)
    (root / "awe" / "gone").symlink_to(tmp_path / "nowhere")
    assert any("awe/gone for example" in note for note in read(root).notes)
