"""A shard is there once and whole, and only what is listed is seen."""

import random
import subprocess
import sys
import time
from dataclasses import asdict

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from uniemo_ray.store.errors import StoreError, SupersededError
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.lease import Lease
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import (
    commit_shard,
    committed,
    drop_shards,
    find_shard,
    read_shard_bytes,
    read_shards,
    shard_paths,
)

WRITER = """
import sys
import pyarrow as pa
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
store = open_store(sys.argv[1])
print("ready", flush=True)
for i in range(60):
    rows = {"image_id": [f"i{i}-{j}" for j in range(20)], "image": [bytes([i]) * 2000] * 20}
    commit_shard(store, f"images-{i:05d}", pa.table(rows), plan_hash="p", versions={"writer": sys.argv[2]})
"""


def table(start: int = 0) -> pa.Table:
    return pa.table(
        {"image_id": [f"i{start + j}" for j in range(4)], "score": [0.5, 1.0, None, float(start)]}
    )


def test_committed_rows_come_back_in_order_of_names(store: Store) -> None:
    for i in (2, 0, 1):
        commit_shard(
            store, f"scores-{i:05d}", table(i), plan_hash="p", seconds=1.23456, versions={"python": "3"}
        )
    commit_shard(store, "images-00000", table(), plan_hash="p")
    entries = committed(store, "scores-")
    assert list(entries) == ["scores-00000", "scores-00001", "scores-00002"]
    entry = entries["scores-00001"]
    assert (entry.rows, entry.seconds, entry.versions, entry.plan_hash) == (4, 1.235, {"python": "3"}, "p")
    assert entry.schema == {"image_id": "string", "score": "double"}
    assert entry.bytes == len(read_shard_bytes(store, entry))
    assert read_shards(store, "scores-").equals(pa.concat_tables([table(0), table(1), table(2)]))
    assert read_shards(store, "scores-", columns=["score"]).column_names == ["score"]


def test_readers_of_parquet_take_the_paths_as_they_are(store: Store) -> None:
    commit_shard(store, "a-0", table(0), plan_hash="p")
    commit_shard(store, "a-1", table(1), plan_hash="q")
    filesystem, _ = store.arrow()
    assert ds.dataset(shard_paths(store, "a-"), filesystem=filesystem).count_rows() == 8


def test_the_first_commit_counts(store: Store) -> None:
    first = commit_shard(store, "a", table(0), plan_hash="p", versions={"attempt": "1"})
    again = commit_shard(store, "a", table(9), plan_hash="p", versions={"attempt": "2"})
    assert again == first == find_shard(store, "a")
    assert read_shards(store).equals(table(0))


def test_unlisted_data_of_a_crashed_attempt_is_unseen_then_listed_as_it_is(store: Store) -> None:
    entry = commit_shard(store, "a", table(0), plan_hash="p", versions={})
    store.delete("manifest/a.json")
    assert committed(store) == {}
    assert find_shard(store, "a") is None
    with pytest.raises(FileNotFoundError, match="no committed shards"):
        read_shards(store)
    assert asdict(commit_shard(store, "a", table(5), plan_hash="p", versions={})) == asdict(entry)
    assert read_shards(store).equals(table(0))


def test_a_shard_of_another_plan_or_shape_is_never_taken(store: Store) -> None:
    commit_shard(store, "a", table(), plan_hash="p")
    for other, plan in ((table(), "q"), (table().slice(1), "p"), (table().select(["score"]), "p")):
        with pytest.raises(ValueError, match=r"a\.parquet is committed with 4 rows of plan p"):
            commit_shard(store, "a", other, plan_hash=plan)
    store.delete("manifest/a.json")
    for other, plan in ((table(), "q"), (table().slice(1), "p"), (table().select(["score"]), "p")):
        with pytest.raises(ValueError, match=r"a\.parquet exists and is of other rows, columns or plan"):
            commit_shard(store, "a", other, plan_hash=plan)
    assert committed(store) == {}


def test_damage_is_named(store: Store) -> None:
    entry = commit_shard(store, "a", table(), plan_hash="p")
    data = store.read_bytes("a.parquet")
    store.write_bytes("a.parquet", data[:-1])
    with pytest.raises(StoreError, match=rf"a\.parquet has {len(data) - 1} bytes instead of {len(data)}"):
        read_shards(store)
    store.write_bytes("a.parquet", data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(StoreError, match="another sha256"):
        read_shard_bytes(store, entry)
    store.delete("a.parquet")
    with pytest.raises(StoreError, match="listed but missing"):
        read_shards(store)
    store.write_bytes("manifest/a.json", b"{}")
    with pytest.raises(StoreError, match=r"manifest/a\.json is no manifest entry"):
        committed(store)


def test_torn_foreign_data_is_not_listed(store: Store) -> None:
    store.write_bytes("a.parquet", b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"a\.parquet exists and is no readable Parquet"):
        commit_shard(store, "a", table(), plan_hash="p")
    assert committed(store) == {}


def flip(data: bytes) -> bytes:
    """One bit of the first page's values."""
    at = len(data) // 4
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("left", ["another plan", "torn", "flipped"])
def test_the_lease_holder_replaces_unlisted_data_that_does_not_fit(uri: str, left: str) -> None:
    rows = pa.table(
        {
            "image_id": [f"i{j}" for j in range(4)],
            "image": [random.Random(j).randbytes(999) for j in range(4)],
        }
    )
    run = RunFolder.open(uri, {})
    commit_shard(run.store, "a", rows, plan_hash="q" if left == "another plan" else "p")
    run.store.delete("manifest/a.json")
    data = run.store.read_bytes("a.parquet")
    run.store.write_bytes("a.parquet", {"torn": data[:-1], "flipped": flip(data)}.get(left, data))
    with run.locked():
        commit_shard(run.fenced_store, "a", rows, plan_hash="p")
    assert read_shards(run.store, "a").equals(rows)
    assert find_shard(run.store, "a").plan_hash == "p"


def test_an_entry_tells_the_failures_of_the_bytes_that_are_stored(store: Store) -> None:
    def rows(reason: str | None) -> pa.Table:
        return pa.table({"image_id": ["i0"], "reason": pa.array([reason], pa.string())})

    commit_shard(store, "a", rows("killed 2 processes"), plan_hash="p")
    store.delete("manifest/a.json")
    assert commit_shard(store, "a", rows(None), plan_hash="p").failed == {"killed 2 processes": 1}


@pytest.mark.slow
def test_killed_and_concurrent_writers_end_with_each_shard_once(store: Store, uri: str) -> None:
    rng = random.Random(1)

    def start(tag: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", WRITER, uri, tag], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    for attempt in range(4):
        writer = start(str(attempt))
        time.sleep(rng.uniform(0.02, 0.25))
        writer.kill()
        writer.communicate()
        for entry in committed(store).values():
            assert pq.read_table(pa.BufferReader(read_shard_bytes(store, entry))).num_rows == 20
    writers = [start("x"), start("y")]
    assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0]
    ids = read_shards(store)["image_id"].to_pylist()
    assert ids == [f"i{i}-{j}" for i in range(60) for j in range(20)]
    assert len(store.list()) == 120


def test_a_shard_with_lists_is_committed_and_found_again(tmp_path):
    store = open_store(str(tmp_path))
    table = pa.table(
        {
            "names": pa.array([["a"], []], pa.list_(pa.string())),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2),
        }
    )
    entry = commit_shard(store, "part", table, plan_hash="p")
    assert commit_shard(store, "part", table, plan_hash="p") == entry
    assert read_shards(store).to_pydict() == table.to_pydict()


def test_what_is_no_part_of_the_plan_is_dropped(store: Store) -> None:
    for name in ("a/part-00000", "a/part-00001", "a/part-00002", "b/part-00000"):
        commit_shard(store, name, table(), plan_hash="p")
    store.write_bytes("a/part-00007.parquet", b"left by a killed writer")
    store.write_bytes("a/mine.txt", b"not a shard")
    keep = {"a/part-00000": "p", "a/part-00001": "q", "a/part-00003": "p"}
    assert drop_shards(store, "a", keep=keep) == ["a/part-00001", "a/part-00002", "a/part-00007"]
    assert list(committed(store)) == ["a/part-00000", "b/part-00000"]
    assert store.list("a") == ["a/mine.txt", "a/part-00000.parquet"]
    assert drop_shards(store, "a", keep=keep) == []


def test_a_superseded_driver_drops_nothing(store: Store) -> None:
    with Lease(store) as lease:
        sub = store.sub("step").fenced(lease.fence)
        commit_shard(sub, "a/part-00000", table(), plan_hash="p")
        store.write_bytes("lock/00000002.json", b"{}")  # another driver's lease
        with pytest.raises(SupersededError):
            drop_shards(sub, "a", keep={})
        store.delete("lock/00000002.json")
    assert store.sub("step").exists("a/part-00000.parquet")


def test_a_replacement_that_comes_too_late_changes_nothing(store: Store) -> None:
    store.write_bytes("a.parquet", b"torn")
    assert not store.replace("a.parquet", b"ours", expected=b"other")
    assert not store.replace("b.parquet", b"ours", expected=b"torn")
    assert store.read_bytes("a.parquet") == b"torn"
    assert not store.exists("b.parquet")
    assert store.replace("a.parquet", b"ours", expected=b"torn")
    assert store.read_bytes("a.parquet") == b"ours"


def test_data_that_another_attempt_has_replaced_meanwhile_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(store) as lease:
        fenced = store.sub("step").fenced(lease.fence)
        made = commit_shard(fenced, "made", table(), plan_hash="p")
        whole = fenced.read_bytes("made.parquet")
        fenced.write_bytes("a.parquet", b"torn")
        replace, calls = type(fenced).replace, []

        def late(self: Store, key: str, data: bytes, *, expected: bytes) -> bool:
            calls.append(key)
            if len(calls) == 1:  # the other attempt is faster by a moment
                self.write_bytes(key, whole)
            return bool(replace(self, key, data, expected=expected))

        monkeypatch.setattr(type(fenced), "replace", late)
        entry = commit_shard(fenced, "a", table(), plan_hash="p")
        assert calls == ["a.parquet"]
        assert entry.sha256 == made.sha256
        assert fenced.read_bytes("a.parquet") == whole
