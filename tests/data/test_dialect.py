"""Label files as spreadsheets export them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.data.dialect import plain_field
from uniemo_ray.data.emotionroi import read_emotionroi
from uniemo_ray.data.folder import FolderError, ListedFolder
from uniemo_ray.data.twitter import read_twitter1, read_twitter2

Rows = list[list[str]]


def labels(folder: ListedFolder) -> dict[str, str]:
    return {e.image_id: e.emotion for split in ("train", "val", "test") for e in folder.entries(split)}


def joined(separator: str, *, quote: str = "", end: str = "\r\n") -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        return end.join(separator.join(f"{quote}{field}{quote}" for field in row) for row in rows).encode()

    return write


EXPORTS = {
    "tabs": joined("\t"),
    "commas": joined(","),
    "semicolons": joined(";"),
    "commas and spaces": joined(", "),
    "quotes": joined(",", quote='"'),
    "BOM": lambda rows: b"\xef\xbb\xbf" + joined(";")(rows),
    "utf-16": lambda rows: joined("\t")(rows).decode().encode("utf-16"),
    "sep line": lambda rows: b"sep=;\r\n" + joined(";")(rows),
    "empty columns": lambda rows: joined(";")([[*row, "", ""] for row in rows]),
    "floats": lambda rows: joined(";")([[f"{x}.0" if x.isdigit() else x for x in row] for row in rows]),
    "empty lines": lambda rows: joined(",", end="\r\n\r\n")(rows),
}
every_export = pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS.keys())


@every_export
@pytest.mark.parametrize("heading", [[], [["image", "label"]]], ids=["rows alone", "heading"])
def test_agreement_files(tmp_path: Path, export: Callable[[Rows], bytes], heading: Rows) -> None:
    names = layouts.twitter1(tmp_path)
    rows = [[name, str(n % 2)] for n, name in enumerate(names)]
    (tmp_path / "five_agrees.txt").write_bytes(export([*heading, *rows]))
    folder = read_twitter1(tmp_path, agreement=5, seed=0)
    assert labels(folder) == {name: ("negative", "positive")[n % 2] for n, name in enumerate(names)}
    assert folder.refused == ()


@every_export
def test_votes(tmp_path: Path, export: Callable[[Rows], bytes]) -> None:
    names = layouts.twitter1(tmp_path)
    rows = [[name, "5", str(5 * (n % 2)), str(5 - 5 * (n % 2))] for n, name in enumerate(names)]
    (tmp_path / "amt_result.csv").write_bytes(export([["image", "all", "num_pos", "num_neg"], *rows]))
    folder = read_twitter1(tmp_path, agreement=5, seed=0)
    assert labels(folder) == {name: ("negative", "positive")[n % 2] for n, name in enumerate(names)}


@every_export
def test_twitter2(tmp_path: Path, export: Callable[[Rows], bytes]) -> None:
    file = layouts.twitter2(tmp_path) / "groundTruthLabel.txt"
    expected = labels(read_twitter2(tmp_path, seed=0))
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    file.write_bytes(export(rows))
    folder = read_twitter2(tmp_path, seed=0)
    assert labels(folder) == expected
    assert folder.refused == ()


@every_export
@pytest.mark.parametrize("columns", [1, 2])
def test_split_lists(tmp_path: Path, export: Callable[[Rows], bytes], columns: int) -> None:
    layouts.emotionroi(tmp_path)
    expected = labels(read_emotionroi(tmp_path, seed=0))
    for file in (tmp_path / "training_testing_split").iterdir():
        rows = [line.split("/") if columns == 2 else [line] for line in file.read_text().splitlines()]
        data = export(rows)
        file.write_bytes(data.removeprefix(b"sep=;\r\n"))
    folder = read_emotionroi(tmp_path, seed=0)
    assert labels(folder) == expected
    assert folder.refused == ()


@pytest.mark.parametrize("text", ["a.jpg|1\nb.jpg|0\n", "1 a.jpg\n0 b.jpg\n"])
def test_a_file_without_a_good_row_says_why(tmp_path: Path, text: str) -> None:
    layouts.twitter1(tmp_path)
    (tmp_path / "five_agrees.txt").write_text(text)
    with pytest.raises(FolderError, match=r"2 were refused, the first is .*five_agrees\.txt:1") as error:
        read_twitter1(tmp_path, agreement=5, seed=0)
    assert len(error.value.faults) == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("5.0", "5"), (' "5,00" ', "5"), ("5.5", "5.5"), ("1.0.jpg", "1.0.jpg"), ("", "")]
)
def test_fields(text: str, expected: str) -> None:
    assert plain_field(text) == expected
