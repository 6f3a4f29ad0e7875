"""Twitter I and II: label files in all their forms."""

from collections import Counter
from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.data.folder import FolderError, ListedFolder
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.twitter import read_twitter1, read_twitter2
from uniemo_ray.emotions import SENTIMENT


def everything(folder: ListedFolder) -> list[Entry]:
    return [entry for split in ("train", "val", "test") for entry in folder.entries(split)]


def at_least(n: int, number: int) -> bool:
    """Images 20 to 29 have three agreeing raters, 10 to 19 four, 0 to 9 five."""
    return 5 - n // 10 >= number


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    layouts.agreement_files(tmp_path, layouts.twitter1(tmp_path), kept=at_least)
    return tmp_path


@pytest.mark.parametrize(("agreement", "count"), [(3, 30), (4, 20), (5, 10)])
def test_subsets_by_agreement(labelled: Path, agreement: int, count: int) -> None:
    folder = read_twitter1(labelled, agreement=agreement, seed=0)
    entries = everything(folder)
    assert len(entries) == count
    assert folder.space == SENTIMENT
    assert Counter(entry.emotion for entry in entries) == {"positive": count // 2, "negative": count // 2}
    assert all((labelled / entry.image).is_file() for entry in entries)
    assert {entry.emotion for entry in entries if entry.image_id.endswith("BfLP1.jpg")} == {"positive"}
    assert any("data.split_seed=0" in note for note in folder.notes)
    unlisted = [note for note in folder.notes if "not listed" in note]
    assert [note.split()[0] for note in unlisted] == ([str(30 - count)] if count < 30 else [])


@pytest.mark.parametrize(
    ("images", "labels", "name"),
    [("images", "ground_truth", "twitter_{word}_agrees.txt"), ("", "", "{word}_agree.txt")],
)
def test_other_places_and_names(tmp_path: Path, images: str, labels: str, name: str) -> None:
    names = layouts.twitter1(tmp_path, images=images)
    layouts.agreement_files(tmp_path / labels, names, file_name=name, kept=at_least)
    entries = everything(read_twitter1(tmp_path, agreement=4, seed=0))
    assert len(entries) == 20
    assert all((tmp_path / entry.image).is_file() for entry in entries)


def test_subset_that_is_not_there(labelled: Path) -> None:
    (labelled / "five_agrees.txt").unlink()
    (labelled / "three_agrees.txt").unlink()
    with pytest.raises(FolderError, match=r"label files for 4 only: set data\.agreement=4"):
        read_twitter1(labelled, agreement=5, seed=0)


def votes(root: Path, heading: str, rows: list[str]) -> Path:
    (root / "amt_result.csv").write_text("\n".join([heading, *rows]) + "\n")
    return root


def test_votes(tmp_path: Path) -> None:
    names = layouts.twitter1(tmp_path)
    rows = [f"x/{name},5,{5 - n // 10 if n % 2 else n // 10},{n // 10 if n % 2 else 5 - n // 10}"
            for n, name in enumerate(names)]  # fmt: skip
    votes(tmp_path, "image,total,num_pos,num_neg", [*rows, "y.jpg,5,?,1", "", "z.jpg,5"])
    folder = read_twitter1(tmp_path, agreement=4, seed=0)
    entries = everything(folder)
    assert sorted(entry.image_id for entry in entries) == sorted(names[:20])
    assert {entry.emotion for entry in entries if entry.image_id in names[1::2]} == {"positive"}
    assert Counter(entry.emotion for entry in entries) == {"positive": 10, "negative": 10}
    assert [(item.reason, item.path) for item in folder.refused] == [
        ("list_malformed", "amt_result.csv:32"),
        ("list_malformed", "amt_result.csv:34"),
    ]
    assert any("10 images are not listed in amt_result.csv with enough agreement" in n for n in folder.notes)
    turned = [row.split(",") for row in rows]
    votes(tmp_path, "Image,NEGATIVE,Positive", [",".join((a, d, c)) for a, _, c, d in turned])
    assert everything(read_twitter1(tmp_path, agreement=4, seed=0)) == entries


@pytest.mark.parametrize("heading", ["a,b,c,d", "image,votes,pos,positive", ""])
def test_votes_whose_columns_have_no_names(tmp_path: Path, heading: str) -> None:
    layouts.twitter1(tmp_path)
    with pytest.raises(FolderError, match="must name a positive and a negative column"):
        read_twitter1(votes(tmp_path, heading, ["a.jpg,5,1,4"]), agreement=3, seed=0)


def test_bad_lines_are_refused_and_stop_nothing(labelled: Path) -> None:
    file = labelled / "five_agrees.txt"
    first = file.read_text().splitlines()[0]
    file.write_text(f"{file.read_text()}\nlonely.jpg\nother.jpg 2\n{first}\nlost.jpg 1\n")
    folder = read_twitter1(labelled, agreement=5, seed=0)
    assert [str(item.reason) for item in folder.refused] == [
        "list_malformed",
        "unknown_label",
        "duplicate_id",
    ]
    assert "five_agrees.txt:13: '2' is no class of the set" in folder.refused[1].detail
    assert len(everything(folder)) == 11  # lost.jpg is found missing when it is read


@pytest.mark.parametrize("reader", ["twitter1", "twitter2"])
def test_class_folders_are_read_too(tmp_path: Path, reader: str) -> None:
    layouts.class_folders(tmp_path, ["Positive", "neg"], 20)
    read = {"twitter1": lambda: read_twitter1(tmp_path, agreement=3, seed=0),
            "twitter2": lambda: read_twitter2(tmp_path, seed=0)}[reader]  # fmt: skip
    assert [len(read().entries(split)) for split in ("train", "val", "test")] == [30, 2, 8]


def test_class_folders_know_no_agreement(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path, ["positive", "negative"], 20)
    with pytest.raises(FolderError, match=r"data\.agreement=5 needs five_agrees\.txt or amt_result\.csv"):
        read_twitter1(tmp_path, agreement=5, seed=0)


@pytest.mark.parametrize(
    ("first_column", "words"),
    [
        (str, "the first column names the images"),
        (lambda n: f"{n}.jpg", "the first column names the images"),
        (lambda n: f"tweet-{n * 7}", "row n is taken for image n"),
    ],
)
def test_twitter2_by_its_label_file(tmp_path: Path, first_column, words: str) -> None:
    folder = read_twitter2(layouts.twitter2(tmp_path, first_column=first_column), seed=0)
    entries = {entry.image_id: entry.emotion for entry in everything(folder)}
    assert len(entries) == 20
    assert entries["religion/1.jpg"] == "positive"
    assert entries["gun_control/12.jpg"] == "negative"
    assert words in folder.notes[0]
    assert [len(folder.entries(split)) for split in ("train", "val", "test")] == [14, 2, 4]


def test_twitter2_without_heading(tmp_path: Path) -> None:
    file = layouts.twitter2(tmp_path) / "groundTruthLabel.txt"
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    assert len(everything(read_twitter2(tmp_path, seed=0))) == 20


def test_twitter2_bad_lines(tmp_path: Path) -> None:
    file = layouts.twitter2(tmp_path) / "groundTruthLabel.txt"
    layouts.put(tmp_path / "gun_control/1.jpg")
    layouts.put(tmp_path / "gun_control/extra.jpg")
    file.write_text(f"{file.read_text()}\n99\tpositive\n21\n2\tneutral\n")
    folder = read_twitter2(tmp_path, seed=0)
    assert [(item.image_id, str(item.reason)) for item in folder.refused] == [
        ("1", "list_malformed"),
        ("99", "image_missing"),
        ("groundTruthLabel.txt:23", "list_malformed"),
        ("religion/2.jpg", "unknown_label"),
    ]
    assert "gun_control/1.jpg and religion/1.jpg has the name 1" in folder.refused[0].detail
    assert any(note.startswith("3 images are not listed") for note in folder.notes)
