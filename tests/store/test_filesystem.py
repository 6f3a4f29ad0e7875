"""Both stores keep the same promises."""

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import Store, open_store

RACER = """
import json, sys, time
from uniemo_ray.store.filesystem import open_store
store, name = open_store(sys.argv[1]), sys.argv[2]
store.exists("race")  # connected before the start
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
won = [i for i in range(25) if store.put_if_absent(f"race/{i}", name.encode() * 1000)]
print(json.dumps({"won": won, "start": start, "end": time.monotonic()}), flush=True)
"""


def test_write_read_replace_delete(store: Store) -> None:
    assert not store.exists("a/b")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b")
    store.write_bytes("a/b", b"1")
    store.write_bytes("a/b", b"22")
    assert store.exists("a/b")
    assert not store.exists("a")
    assert store.read_bytes("a/b") == b"22"
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("a", b"first")
    assert not store.put_if_absent("a", b"second")
    assert store.read_bytes("a") == b"first"


def test_racing_processes_have_one_winner_per_key(store: Store, uri: str) -> None:
    commands = [[sys.executable, "-c", RACER, uri, f"p{i}"] for i in range(4)]
    racers = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [json.loads(racer.communicate()[0]) for racer in racers]
    overlap = min(result["end"] for result in results) - max(result["start"] for result in results)
    assert overlap > 0, "the race was none: one process had finished before another began"
    assert sorted(key for result in results for key in result["won"]) == list(range(25))
    for i, result in enumerate(results):
        assert all(store.read_bytes(f"race/{key}") == f"p{i}".encode() * 1000 for key in result["won"])


def test_listing_is_recursive_sorted_and_by_folder(store: Store) -> None:
    for key in ("b/2", "b/1/x", "bb/3", "a"):
        store.write_bytes(key, b"")
    assert store.list() == ["a", "b/1/x", "b/2", "bb/3"]
    assert store.list("b") == ["b/1/x", "b/2"]
    assert store.list("none") == []
    assert store.is_empty("none")
    assert not store.is_empty("bb")


def test_sub_store_is_a_view_of_a_folder(store: Store) -> None:
    sub = store.sub("x/y")
    sub.write_bytes("z", b"1")
    assert store.read_bytes("x/y/z") == b"1"
    assert sub.list() == ["z"]
    assert sub.uri == f"{store.uri}/x/y"


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../../b", "a//b", "./a", "a\\b", "a\0"])
def test_keys_stay_below_the_root(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="expected a relative key"):
        store.write_bytes(key, b"")


def test_json(store: Store) -> None:
    store.write_json("a.json", {"b": [1, "ä"], "a": None})
    assert store.read_json("a.json") == {"b": [1, "ä"], "a": None}
    assert store.read_bytes("a.json").decode().index('"b"') < store.read_bytes("a.json").decode().index('"a"')
    store.write_bytes("a.json", b'{"b": [1')
    with pytest.raises(StoreError, match=r"a\.json holds no valid JSON"):
        store.read_json("a.json")


def test_folders_go_up_and_come_down(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "b").write_bytes(bytes(range(256)) * 5000)
    (source / "a").write_bytes(b"")
    packed = gzip.compress(b"packed")
    (source / "c.gz").write_bytes(packed)
    assert store.upload_dir(source, "up") == ["up/a", "up/c.gz", "up/deep/b"]
    paths = store.download_dir("up", tmp_path / "target")
    assert paths == [tmp_path / "target" / name for name in ("a", "c.gz", "deep/b")]
    assert [path.read_bytes() for path in paths] == [b"", packed, bytes(range(256)) * 5000]
    with pytest.raises(FileNotFoundError):
        store.download_dir("nothing", tmp_path / "target")
    with pytest.raises(ValueError, match="expects a folder"):
        store.upload_dir(source / "a")


def test_arrow_reads_and_writes_below_the_root(store: Store) -> None:
    filesystem, root = store.arrow()
    table = pa.table({"a": [1, 2, 3]})
    store.write_bytes("t/first.parquet", b"")
    pq.write_table(table, f"{root}/t/x.parquet", filesystem=filesystem)
    assert store.list("t") == ["t/first.parquet", "t/x.parquet"]
    assert pq.read_table(f"{root}/t/x.parquet", filesystem=filesystem).equals(table)


def test_a_pickled_store_still_works(store: Store) -> None:
    store.write_bytes("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read_bytes("a") == b"1"
    assert copy.uri == store.uri


def test_local_path_only_on_disk(store: Store) -> None:
    expected = None if store.uri.startswith("s3://") else Path(store.uri, "a")
    assert store.local_path_or_none("a") == expected


def test_opening_writes_nothing_and_makes_paths_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("runs/a").uri == str(tmp_path / "runs" / "a")
    assert open_store(f"file://{tmp_path}/b").uri == f"{tmp_path}/b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri", ["", "gs://a/b", "s3://bucket", "s3://bucket/", "s3:///a", "s3://B_/a", "s3://bucket/a//b"]
)
def test_wrong_addresses(uri: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        open_store(uri)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="is a file: expected a folder"):
        open_store(str(tmp_path / "a"))
