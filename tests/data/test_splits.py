import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.data.samples import Entry
from uniemo_ray.data.splits import FIFTH, FOLDS, LITERATURE, OFFICIAL, Shares, split_by_fold, stratify


def entries(**sizes: int) -> list[Entry]:
    return [
        Entry(f"{label}/{i}.jpg", label, f"{label}/{i}.jpg", None)
        for label, size in sizes.items()
        for i in range(size)
    ]


def sizes(parts: dict[str, list[Entry]]) -> dict[str, Counter[str]]:
    return {split: Counter(entry.emotion for entry in part) for split, part in parts.items()}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [(LITERATURE, (80, 5, 15)), (FIFTH, (75, 5, 20)), (Shares(0, 0), (100, 0, 0)), (OFFICIAL, (94, 6, 0))],
)
def test_shares_hold_in_every_class(shares: Shares, expected: tuple[int, ...]) -> None:
    found = sizes(stratify(entries(awe=100, fear=200), shares, seed=0))
    assert tuple(found[split]["awe"] for split in ("train", "val", "test")) == expected
    if shares is not OFFICIAL:  # 200 / 17 is no whole number
        assert tuple(found[split]["fear"] for split in ("train", "val", "test")) == tuple(
            2 * n for n in expected
        )


def test_order_of_files_changes_nothing_and_the_seed_does() -> None:
    given_order = entries(awe=40, fear=40)
    shuffled = random.Random(3).sample(given_order, len(given_order))
    parts = stratify(given_order, LITERATURE, seed=0)
    assert stratify(shuffled, LITERATURE, seed=0) == parts
    other = stratify(given_order, LITERATURE, seed=1)
    assert sizes(other) == sizes(parts)
    assert other["test"] != parts["test"]


def test_known_draw() -> None:
    # Published results depend on it: another draw would be another data set.
    parts = stratify(entries(awe=10), LITERATURE, seed=0)
    assert [entry.image_id for entry in parts["test"]] == ["awe/4.jpg", "awe/8.jpg"]
    assert [entry.image_id for entry in parts["val"]] == ["awe/5.jpg"]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_parts_are_disjoint_whole_and_keep_training_images(awe: int, fear: int, seed: int) -> None:
    given_entries = entries(awe=awe, fear=fear)
    parts = stratify(given_entries, LITERATURE, seed=seed)
    assert sorted(entry for part in parts.values() for entry in part) == sorted(given_entries)
    for label, size in (("awe", awe), ("fear", fear)):
        counts = [found[label] for found in sizes(parts).values()]
        assert counts[0] >= min(size, 1)
        assert all(counts) == (size >= 3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_each_image_is_in_exactly_one_test_fold(awe: int, fear: int, seed: int) -> None:
    given_entries = entries(awe=awe, fear=fear)
    folds = [split_by_fold(given_entries, fold=fold, seed=seed) for fold in range(FOLDS)]
    tested = [entry for parts in folds for entry in parts["test"]]
    assert sorted(tested) == sorted(given_entries)
    for parts in folds:
        assert sorted(entry for part in parts.values() for entry in part) == sorted(given_entries)
    for label in ("awe", "fear"):
        found = [sum(entry.emotion == label for entry in parts["test"]) for parts in folds]
        assert max(found) - min(found) <= 1
    sizes_of_folds = [len(parts["test"]) for parts in folds]
    assert max(sizes_of_folds) - min(sizes_of_folds) <= 1


def test_folds_depend_on_the_seed_and_not_on_the_order_of_files() -> None:
    given_order = entries(awe=40, fear=40)
    shuffled = random.Random(3).sample(given_order, len(given_order))
    parts = split_by_fold(given_order, fold=2, seed=0)
    assert split_by_fold(shuffled, fold=2, seed=0) == parts
    assert split_by_fold(given_order, fold=2, seed=1)["test"] != parts["test"]
    assert sizes(parts) == {
        "train": Counter(awe=30, fear=30),
        "val": Counter(awe=2, fear=2),
        "test": Counter(awe=8, fear=8),
    }


def test_known_fold() -> None:
    # Published results depend on it: another draw would be another data set.
    parts = split_by_fold(entries(awe=10), fold=0, seed=0)
    assert [entry.image_id for entry in parts["test"]] == ["awe/6.jpg", "awe/9.jpg"]
