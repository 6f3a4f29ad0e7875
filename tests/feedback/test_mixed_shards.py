"""Chosen images of many small shards become few shards of samples, planned the same each time."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from uniemo_ray.feedback.mixed_shards import commit_mix_plan, group_chosen
from uniemo_ray.feedback.mixing import Kept
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

SHARDS, ROWS, EACH = 400, 256, 6


def entry(number: int) -> ShardEntry:
    name = f"images/part-{number:05d}"
    return ShardEntry(name, ROWS, 1000 * ROWS, "0" * 64, {}, "p", {}, 0.0)


IMAGES = {known.name: known for known in map(entry, range(SHARDS))}
CHOSEN = [Kept(f"{name}-{row}", name) for name in IMAGES for row in range(EACH)]


def test_shards_are_full_at_a_thousand_rows_and_hold_whole_image_shards() -> None:
    groups = group_chosen(CHOSEN, IMAGES, rows=1024, size=1 << 40)
    assert [image for group in groups for image in group] == CHOSEN
    assert len(groups) == 3  # of 2,400 rows, and not one for each of 400 image shards
    assert all(1024 <= len(group) < 1024 + EACH for group in groups[:-1])
    for group, following in pairwise(groups):
        assert group[-1].shard < following[0].shard


def test_large_pictures_fill_a_shard_by_their_bytes() -> None:
    groups = group_chosen(CHOSEN, IMAGES, rows=1024, size=300_000)
    assert {len(group) for group in groups} == {300}
    assert group_chosen([], IMAGES, rows=1024, size=1) == [[]]


def plan(folder: Path) -> pa.Table:
    return read_shards(open_store(str(folder)), "mix-plan/")


def test_the_plan_is_committed_once_and_what_an_earlier_release_made_goes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(5):  # one for each image shard, under the fingerprint of the step
        commit_shard(store, f"synthetic/part-{number:05d}", pa.table({"a": [1]}), plan_hash="f")
    commit_mix_plan(CHOSEN, IMAGES, store, plan="f")
    assert plan(tmp_path)["image_id"].to_pylist() == [image.image_id for image in CHOSEN]
    assert not committed(store, "synthetic/")
    before = committed(store)
    first = next(iter(before.values()))
    commit_shard(store, "synthetic/part-00000", pa.table({"a": [2]}), plan_hash=first.plan_hash)
    commit_mix_plan(CHOSEN, IMAGES, store, plan="f")
    assert set(committed(store)) == {*before, "synthetic/part-00000"}  # what is made of this plan stays
    commit_mix_plan(CHOSEN[:-1], IMAGES, store, plan="f")
    assert plan(tmp_path).num_rows == len(CHOSEN) - 1


def test_no_chosen_image_is_one_shard_without_rows(tmp_path: Path) -> None:
    commit_mix_plan([], IMAGES, open_store(str(tmp_path)), plan="f")
    assert plan(tmp_path).num_rows == 0


@pytest.mark.parametrize("rows", [1, 7])
def test_the_order_of_groups_is_that_of_the_images(rows: int) -> None:
    groups = group_chosen(CHOSEN[:50], IMAGES, rows=rows, size=1 << 40)
    assert [image for group in groups for image in group] == CHOSEN[:50]
