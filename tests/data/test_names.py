"""File names that are no UTF-8, as zip files from other machines leave them."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.check import check_folder
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.readers import open_folder
from uniemo_ray.text import escaped, is_utf8

LATIN = b"caf\xe9.jpg"
SHOWN = "caf\\xe9.jpg"


def spoil(folder: Path) -> None:
    """Gives one picture of the folder a name in Latin-1."""
    picture = layouts.put(folder / "new.jpg")
    os.rename(picture, os.fsencode(folder) + b"/" + LATIN)


def roots(kind: str, root: Path) -> Path:
    if kind == "fi":
        spoil(layouts.fi(root, 3) / "awe")
    elif kind == "folders":  # of a class that the set does not have
        (layouts.fi(root, 3) / "neutral").mkdir()
        spoil(root / "neutral")
    elif kind == "emotionroi":
        spoil(layouts.emotionroi(root) / "images/joy")
    elif kind == "twitter1":
        layouts.agreement_files(root, layouts.twitter1(root), kept=lambda n, number: True)
        spoil(root / "Agg_AMT_Candidates")
    else:
        spoil(layouts.twitter2(root) / "religion")
    return root


@pytest.mark.parametrize("kind", ["fi", "folders", "emotionroi", "twitter1", "twitter2"])
def test_a_name_that_is_no_utf8_is_refused_and_the_rest_used(kind: str, tmp_path: Path) -> None:
    data = DataConfig(kind=kind, root=str(tmp_path))  # type: ignore[arg-type]

    def reader(root: str | Path) -> DataFolder:
        return open_folder(root, data)

    report = check_folder(roots(kind, tmp_path), reader=reader)
    (refused,) = report.rejected
    assert SHOWN in refused.path
    assert refused.reason == ("unknown_label" if kind == "folders" else "path_invalid")
    assert sum(report.usable.values()) >= 20
    folder = reader(tmp_path)
    rows = [entry for split in ("train", "val", "test") for entry in folder.entries(split)]
    pa.array([text for row in (*rows, *folder.refused) for text in row])  # as shards and summaries hold them


def test_a_folder_with_such_a_name_is_named(tmp_path: Path) -> None:
    layouts.fi(tmp_path, 3)
    (tmp_path / "x").mkdir()
    layouts.put(tmp_path / "x" / "1.jpg")
    os.rename(tmp_path / "x", os.fsencode(tmp_path) + b"/caf\xe9")
    folder = open_folder(tmp_path, DataConfig(kind="fi", root=str(tmp_path)))
    (refused,) = folder.refused
    assert refused.path == "caf\\xe9/1.jpg"


@pytest.mark.parametrize("name", ["caf\udce9", "\ud83d"])
def test_such_a_name_in_a_list_is_refused(emoset: Path, name: str) -> None:
    rows = json.loads((emoset / "test.json").read_text())
    rows[1][1] = f"image/awe/{name}.jpg"
    (emoset / "test.json").write_text(json.dumps(rows))
    (refused,) = EmoSetFolder(emoset).refused
    assert refused.path.startswith("image/awe/")
    assert (refused.reason, refused.split, is_utf8(refused.path)) == ("path_invalid", "test", True)
    assert check_folder(emoset).usable["test"] == 7


@pytest.mark.parametrize(
    ("text", "shown"), [("aé", "aé"), ("a\udce9", "a\\xe9"), ("\ud83d", "\\ud83d"), ("", "")]
)
def test_escapes(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert is_utf8(shown)
    assert is_utf8(text) == (text == shown)
