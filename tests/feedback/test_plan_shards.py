"""The plan on disk: it grows behind what is there, mends its gaps, and is never exchanged."""

from pathlib import Path

import pyarrow as pa
import pytest

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import commit_plan
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards


def plan(per_emotion: int, *, seed: int = 0) -> PlannedImages:
    return PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=per_emotion,
        seed=seed,
        model="abc",
        diffusion=DiffusionConfig(),
        generation=GenerationConfig(),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def sizes(store: Store) -> list[int]:
    return [entry.rows for entry in committed(store, "plan/").values()]


def test_a_plan_grows_behind_its_shards(store: Store) -> None:
    commit_plan(plan(2), store, rows_per_shard=5)
    small = committed(store)
    assert sizes(store) == [5, 5, 5, 1]
    commit_plan(plan(4), store, rows_per_shard=5)
    assert sizes(store) == [5, 5, 5, 1, 5, 5, 5, 1]
    assert {name: entry for name, entry in committed(store).items() if name in small} == small
    assert read_shards(store).equals(plan(4).slice(0, 32))
    commit_plan(plan(4), store, rows_per_shard=5)
    assert len(sizes(store)) == 8


def test_a_plan_is_not_exchanged_and_does_not_shrink(store: Store) -> None:
    commit_plan(plan(2), store, rows_per_shard=5)
    with pytest.raises(ValueError, match="holds shards of another plan"):
        commit_plan(plan(2, seed=1), store, rows_per_shard=5)
    with pytest.raises(ValueError, match="more than 8 images: a run can grow, not shrink"):
        commit_plan(plan(1), store, rows_per_shard=5)
    assert sizes(store) == [5, 5, 5, 1]


@pytest.mark.parametrize("is_made", [True, False], ids=["images are there", "images are lost"])
@pytest.mark.parametrize("lost", [0, 3, 7])
def test_a_lost_shard_comes_back_with_the_same_rows(store: Store, lost: int, is_made: bool) -> None:
    commit_plan(plan(2), store, rows_per_shard=5)
    commit_plan(plan(4), store, rows_per_shard=5)
    for name, entry in committed(store, "plan/").items():  # the images that were made for it
        images = pa.table({"image_id": ["x"] * entry.rows})
        commit_shard(store, name.replace("plan", "images"), images, plan_hash=entry.plan_hash)
    before = committed(store)
    for folder in ("plan",) if is_made else ("plan", "images"):
        store.delete(f"{folder}/part-{lost:05d}.parquet")
        store.delete(f"manifest/{folder}/part-{lost:05d}.json")
    commit_plan(plan(4), store, rows_per_shard=5)
    assert committed(store, "plan/") == {k: v for k, v in before.items() if k.startswith("plan/")}


def lose(store: Store, number: int, *folders: str) -> None:
    for folder in folders:
        store.delete(f"{folder}/part-{number:05d}.parquet")
        store.delete(f"manifest/{folder}/part-{number:05d}.json")


def test_shards_are_numbered_from_zero_on(store: Store) -> None:
    commit_plan(plan(2), store, rows_per_shard=5)
    assert list(committed(store, "plan/")) == [f"plan/part-{number:05d}" for number in range(4)]


def test_a_plan_may_be_one_shard(store: Store) -> None:
    commit_plan(plan(1), store, rows_per_shard=8)
    assert sizes(store) == [8]
    commit_plan(plan(1), store, rows_per_shard=8)
    assert sizes(store) == [8]


def test_a_plan_that_ends_with_an_earlier_shard_would_shrink(store: Store) -> None:
    commit_plan(plan(2), store, rows_per_shard=8)
    with pytest.raises(ValueError, match="more than 8 images: a run can grow, not shrink"):
        commit_plan(plan(1), store, rows_per_shard=8)


@pytest.mark.parametrize("rows_per_shard", [5, 7], ids=["one row", "two rows"])
def test_a_short_shard_that_was_lost_before_the_plan_grew_has_the_rows_of_its_images(
    store: Store, rows_per_shard: int
) -> None:
    commit_plan(plan(2), store, rows_per_shard=rows_per_shard)
    small = sizes(store)
    last = len(small) - 1
    entry = committed(store, "plan/")[f"plan/part-{last:05d}"]
    images = pa.table({"image_id": ["x"] * entry.rows})
    commit_shard(store, f"images/part-{last:05d}", images, plan_hash=entry.plan_hash)
    lose(store, last, "plan")
    commit_plan(plan(4), store, rows_per_shard=rows_per_shard)
    assert sizes(store)[: last + 1] == small
    assert committed(store, "plan/")[f"plan/part-{last:05d}"].plan_hash == entry.plan_hash


@pytest.mark.parametrize("rows_per_shard", [5, 7], ids=["one row", "two rows"])
def test_a_short_shard_that_was_lost_with_its_images_fits_before_the_next(
    store: Store, rows_per_shard: int
) -> None:
    commit_plan(plan(2), store, rows_per_shard=rows_per_shard)
    last = len(sizes(store)) - 1
    commit_plan(plan(4), store, rows_per_shard=rows_per_shard)
    before = committed(store, "plan/")
    lose(store, last, "plan")
    commit_plan(plan(4), store, rows_per_shard=rows_per_shard)
    assert committed(store, "plan/") == before
