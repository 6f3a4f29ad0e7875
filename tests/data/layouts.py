"""Small folders in the layouts in which the published data sets are passed on; every picture is another."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.data.conftest import picture
from uniemo_ray.emotions import EKMAN, EMOTIONS

_SEEDS = itertools.count(1000)


def put(path: Path, kind: str = "JPEG") -> Path:
    """A picture of its own at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(next(_SEEDS), kind=kind))
    return path


def class_folders(root: Path, classes: Iterable[str], count: int, *, name: str = "{n}.jpg") -> Path:
    for label in classes:
        for n in range(count):
            put(root / label / name.format(n=n, label=label.lower()))
    return root


def fi(root: Path, count: int = 20) -> Path:
    """One folder per emotion, as FI is passed on."""
    return class_folders(root, EMOTIONS, count, name="{label}_{n:04d}.jpg")


def fi_split(root: Path, *, splits: Sequence[str] = ("train", "val", "test"), count: int = 4) -> Path:
    """One folder per split and emotion, names in upper case."""
    for split in splits:
        class_folders(root / split, [name.upper() for name in EMOTIONS], count, name="{n}.JPG")
    return root


def emotionroi(root: Path, *, train: int = 14, test: int = 6, lists: str = "training_testing_split") -> Path:
    """Images numbered per class, stimuli maps beside them, and the two official lists."""
    lines: dict[str, list[str]] = {"training.txt": [], "testing.txt": []}
    for label in EKMAN.labels:
        for n in range(train + test):
            put(root / "images" / label / f"{n + 1}.jpg")
            put(root / "ground_truth" / label / f"{n + 1}.jpg")
            lines["training.txt" if n < train else "testing.txt"].append(f"{label}/{n + 1}.jpg")
    (root / lists).mkdir(exist_ok=True)
    for name, rows in lines.items():
        (root / lists / name).write_text("\r\n".join(rows) + "\r\n")
    return root


def twitter1(root: Path, *, images: str = "Agg_AMT_Candidates", count: int = 30) -> list[str]:
    """Images of Twitter I without any label file; returns their names."""
    names = [
        f"10058{n}_42863{n}_BfLP {n}.jpg" if n == 3 else f"10058{n}_42863{n}_BfLP{n}.jpg"
        for n in range(count)
    ]
    for name in names:
        put(root / images / name)
    return names


def agreement_files(
    root: Path,
    names: Sequence[str],
    *,
    file_name: str = "{word}_agrees.txt",
    kept: Callable[[int, int], bool],
) -> None:
    """Label files of Twitter I: image n has label n % 2; `kept` says which file has it."""
    root.mkdir(parents=True, exist_ok=True)
    for number, word in ((3, "three"), (4, "four"), (5, "five")):
        rows = [f"{name} {n % 2}" for n, name in enumerate(names) if kept(n, number)]
        (root / file_name.format(word=word)).write_text("\n".join(rows) + "\n")


def twitter2(root: Path, *, count: int = 20, first_column: Callable[[int], str] = str) -> Path:
    """Images numbered over folders of topics, and the label file with a heading."""
    rows = ["ID\tGround truth"]
    for n in range(1, count + 1):
        put(root / ("religion" if n % 3 else "gun_control") / f"{n}.jpg")
        rows.append(f"{first_column(n)}\t{'positive' if n % 2 else 'negative'}")
    (root / "groundTruthLabel.txt").write_text("\n".join(rows))
    return root
