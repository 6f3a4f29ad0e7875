"""One file instead of many entries, and entries of superseded drivers that do not count."""

from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniemo_ray.store import shards
from uniemo_ray.store.errors import StoreError, SupersededError
from uniemo_ray.store.fence import LeaseFence
from uniemo_ray.store.filesystem import Store
from uniemo_ray.store.lease import Lease
from uniemo_ray.store.seal import NO_SEAL, read_seal, sealed_epoch
from uniemo_ray.store.shards import commit_shard, committed, find_shard, seal_manifest


def rows(x: int = 0) -> pa.Table:
    return pa.table({"x": [x], "reason": pa.array(["bad" if x else None], pa.string())})


def under(store: Store, epoch: int) -> Store:
    """The store as the driver of this epoch writes to it."""
    store.put_if_absent(f"lock/{epoch:08d}.json", b"{}")
    return store.sub("step").fenced(LeaseFence(store, epoch))


def test_what_a_seal_holds_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MANY_UNSEALED", 3)
    entries = {f"a/{k}": commit_shard(store, f"a/{k}", rows(k), plan_hash=f"p{k}") for k in range(3)}
    assert read_seal(store) == NO_SEAL
    assert seal_manifest(store) == entries
    assert entries["a/1"].failed == {"bad": 1}
    seal = read_seal(store)
    assert {entry.name: entry for _, entry in seal.entries.values()} == entries
    # an entry that was written anew is read, one that is gone is gone
    store.write_json("manifest/a/1.json", asdict(replace(entries["a/1"], seconds=9.0)))
    store.delete("manifest/a/2.json")
    assert committed(store) == {"a/0": entries["a/0"], "a/1": replace(entries["a/1"], seconds=9.0)}
    assert committed(store, "b/") == {}


def test_entries_of_superseded_drivers_count_only_if_sealed(store: Store) -> None:
    first = under(store, 1)
    before = commit_shard(first, "a/0", rows(), plan_hash="p")
    assert before.epoch == 1
    second = under(store, 2)
    assert seal_manifest(second) == {"a/0": before}
    late = replace(before, name="a/1")
    second.write_json("manifest/a/1.json", asdict(late))
    assert committed(second) == {"a/0": before}
    assert find_shard(second, "a/1") is None
    assert find_shard(second, "a/0") == before
    own = commit_shard(second, "a/1", rows(), plan_hash="p")
    assert own.epoch == 2
    assert committed(second) == {"a/0": before, "a/1": own}
    with pytest.raises(SupersededError, match=r"lease 2, ours was 1"):
        commit_shard(first, "a/2", rows(), plan_hash="p")
    with pytest.raises(SupersededError):
        seal_manifest(first)
    with pytest.raises(StoreError, match="is written under leases"):
        commit_shard(store.sub("step"), "a/2", rows(), plan_hash="p")
    assert set(committed(second)) == {"a/0", "a/1"}


def test_the_first_driver_needs_no_seal(store: Store) -> None:
    with Lease(store) as lease:
        fenced = store.sub("step").fenced(lease.fence)
        commit_shard(fenced, "a/0", rows(), plan_hash="p")
        assert set(seal_manifest(fenced)) == {"a/0"}
        assert fenced.is_empty("sealed")


def test_numbers_go_on_where_somebody_has_removed_the_leases(store: Store) -> None:
    for _ in range(3):
        with Lease(store) as lease:
            fenced = store.sub("artefacts/a").fenced(lease.fence)
            commit_shard(fenced, f"a/{lease.epoch}", rows(), plan_hash="p")
            seal_manifest(fenced)
    assert sealed_epoch(store.sub("artefacts/a")) == 3
    for key in store.list("lock"):
        store.delete(key)
    with Lease(store) as lease:
        assert lease.epoch == 4
        fenced = store.sub("artefacts/a").fenced(lease.fence)
        commit_shard(fenced, "a/4", rows(), plan_hash="p")
        assert set(seal_manifest(fenced)) == {"a/1", "a/2", "a/3", "a/4"}


def test_a_damaged_seal_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MANY_UNSEALED", 1)
    for k in range(40):  # so many that the middle of a column is data and no header
        commit_shard(store, f"a/{k:02d}", rows(k), plan_hash="p")
    seal_manifest(store)
    (key,) = store.list("sealed")
    data = store.read_bytes(key)
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    sha256 = next(column for column in columns if column.path_in_schema == "sha256")
    at = (sha256.dictionary_page_offset or sha256.data_page_offset) + sha256.total_compressed_size // 2
    for damaged in (data[:-40], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
        store.write_bytes(key, damaged)
        with pytest.raises(StoreError, match=r"sealed/00000000\.parquet is no readable seal"):
            committed(store)
