import pyarrow as pa

from uniemo_ray.data.duplicates import CONTENT, Place, describe, find_duplicates


def table(*rows: tuple[str, str, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(CONTENT.names, row, strict=True)) for row in rows], schema=CONTENT)


def test_groups_by_content_training_first() -> None:
    found = find_duplicates(
        table(
            ("test", "t1", "awe", "aa"),
            ("train", "b", "awe", "aa"),
            ("train", "a", "fear", "bb"),
            ("train", "c", "awe", "cc"),
            ("val", "v", "anger", "dd"),
            ("train", "a2", "fear", "bb"),
            ("val", "v2", "awe", "dd"),
        )
    )
    assert [item.sha256 for item in found] == ["bb", "aa", "dd"]
    assert found[1].places == (Place("train", "b", "awe"), Place("test", "t1", "awe"))
    assert [item.is_leak for item in found] == [False, True, False]
    assert [item.is_conflict for item in found] == [False, False, True]
    lines = describe(found)
    assert lines == [
        "images that lie in several splits, byte for byte, so that the test was seen in training: 1 "
        "(b in train and t1 in test)",
        "images with several labels: 1 (v in val and v2 in val)",
        "images that lie several times in one split, with one label: 1 (a in train and a2 in train)",
    ]


def test_nothing_twice_is_no_line() -> None:
    assert find_duplicates(table(("train", "a", "awe", "aa"), ("test", "b", "awe", "bb"))) == ()
    assert find_duplicates(CONTENT.empty_table()) == ()
    assert describe(()) == []
