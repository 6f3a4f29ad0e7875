"""The rank filter as real Ray tasks."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from tests.feedback.reference_filter import filter_by_rank
from uniemo_ray.config import FilterConfig
from uniemo_ray.distributed.ranking import filter_scores, run_tasks
from uniemo_ray.feedback.verdicts import NEEDED
from uniemo_ray.pools import Pool
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

POOL = Pool(actors=2, memory_gb=0.1)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def scores(rows: int) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"i{i * 37 % rows:04d}" for i in range(rows)],
            "emotion": ["awe", "fear", "anger"] * (rows // 3),
            "emo_score": pa.array([i % 5 / 5 for i in range(rows)], pa.float32()),
            "sem_score": pa.array([i % 11 / 11 for i in range(rows)], pa.float32()),
            "reason": pa.nulls(rows, pa.string()),
        },
        schema=NEEDED,
    )


def test_equals_the_filter_in_memory_and_stops_early_when_done(tmp_path):
    store, table = open_store(str(tmp_path)), scores(300)
    for number in range(10):
        part = table.slice(30 * number, 30)
        commit_shard(store, f"scores/part-{number:05d}", part, plan_hash="p")
    for scope in ("global", "per_emotion"):
        target, config = open_store(str(tmp_path / scope)), FilterConfig(scope=scope)
        summary = filter_scores(store, target, config=config, pool=POOL, rows_per_task=90)
        expected = filter_by_rank(table, config)
        assert summary == expected.summary
        assert read_shards(target, "kept/").sort_by("image_id").equals(expected.kept)
        before = committed(target)
        assert filter_scores(store, target, config=config, pool=POOL) == summary
        assert committed(target) == before
    commit_shard(store, "scores/part-00010", table.slice(0, 1), plan_hash="p")
    with pytest.raises(ValueError, match=r"^scores hold image 'i0000' more than once"):
        filter_scores(store, open_store(str(tmp_path / "twice")), config=FilterConfig(), pool=POOL)


def fail_at(folder: str, kind: str, number: int) -> int:
    marks = Path(folder)
    if number == 2 and len(list(marks.iterdir())) < 2:
        (marks / str(len(list(marks.iterdir())))).touch()
        raise StoreError("S3 is away") if kind == "storage" else ValueError("wrong")
    return number * number


class Deadly:
    def __call__(self, number: int) -> int:
        if number == 1:
            os._exit(1)
        return number


def test_a_piece_that_kills_its_process_is_told_in_one_line():
    with pytest.raises(StoreError, match=r"^a piece of the filter died 3 times .*memory_gb_per_actor"):
        run_tasks(Deadly(), range(2), pool=POOL)


class Work:
    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = str(folder), kind

    def __call__(self, number: int) -> int:
        return fail_at(self.folder, self.kind, number)


def test_storage_is_tried_again_and_a_wrong_value_is_not(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run_tasks(Work(tmp_path / "a", "storage"), range(5), pool=POOL) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match=r"^wrong$"):
        run_tasks(Work(tmp_path / "b", "value"), range(5), pool=POOL)
    assert len(list((tmp_path / "b").iterdir())) == 1
    assert run_tasks(Work(tmp_path / "b", "value"), [], pool=POOL) == []
