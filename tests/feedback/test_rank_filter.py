"""The filter on shards against the filter in memory and against plain sorting."""

import math
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.feedback.reference_filter import filter_by_rank
from uniemo_ray.config import FilterConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.rank_filter import filter_shards
from uniemo_ray.feedback.ranking.chunk_ranking import in_turn
from uniemo_ray.feedback.ranking.score_chunks import score_keys
from uniemo_ray.feedback.schema import KEPT, SCORES
from uniemo_ray.feedback.verdicts import rank_band
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.record import library_versions
from uniemo_ray.store.shards import commit_shard, committed, read_shards

TINY, HALF = 2.0**-149, 2.0**-126  # the smallest float32, and the smallest with full precision
ids = st.text("aZ0-é字", min_size=1, max_size=4)
tied = st.sampled_from([0.0, -0.0, 0.5])
odd = st.sampled_from(
    [0.0, -0.0, TINY, -TINY, 3 * TINY, HALF, -1.0, 1.0, None, math.nan, math.inf, -math.inf]
)
score = st.one_of(tied, odd, st.floats(width=32))
percent = st.one_of(st.integers(0, 100).map(float), st.decimals(0, 100, places=2).map(float))


def rows_with(scores):
    row = {
        "emotion": st.sampled_from(EMOTIONS[:3]),
        "emo_score": scores,
        "sem_score": scores,
        "reason": st.sampled_from([None, None, None, "image_missing"]),
    }
    return st.dictionaries(ids, st.fixed_dictionaries(row), max_size=30).map(
        lambda found: [{"image_id": name, **values} for name, values in found.items()]
    )


@st.composite
def configs(draw):
    eta, delta = sorted(draw(st.lists(percent, min_size=2, max_size=2, unique=True)))
    criteria = draw(st.sampled_from([("emo", "sem"), ("sem", "emo"), ("emo",), ("sem",)]))
    return FilterConfig(
        eta=eta, delta=delta, criteria=criteria, scope=draw(st.sampled_from(["global", "per_emotion"]))
    )


@contextmanager
def scratch_folder():
    """In memory where there is such a folder: these tests write thousands of small files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def write_scores(store: Store, table: pa.Table, shard_rows: int) -> Store:
    for number, start in enumerate(range(0, max(1, len(table)), shard_rows)):
        part = table.slice(start, shard_rows)
        commit_shard(store, f"scores/part-{number:05d}", part, plan_hash="p", versions={})
    return store


def simple(rows: int, *, levels: int = 20, seed: int = 0) -> pa.Table:
    """Scores with many ties, ids interleaved by emotion and shuffled."""
    rng = np.random.default_rng(seed)
    values = [
        {
            "image_id": f"r1-{EMOTIONS[i % 8]}-{i // 8:09d}",
            "emotion": EMOTIONS[i % 8],
            "emo_score": float(rng.integers(0, levels)) / levels,
            "sem_score": float(rng.random(dtype=np.float32)),
        }
        for i in rng.permutation(rows)
    ]
    return pa.Table.from_pylist(values, schema=SCORES)


def numpy_ranks(table: pa.Table, config: FilterConfig, name: str) -> dict[str, int]:
    """Rank of each ranked image by one full sort per group."""
    needed = [f"{criterion}_score" for criterion in config.criteria]
    members: dict[str, list[Any]] = {}
    for row in table.to_pylist():
        scores = [row[column] for column in needed]
        if row["reason"] is None and all(s is not None and math.isfinite(s) for s in scores):
            group = row["emotion"] if config.scope == "per_emotion" else ""
            members.setdefault(group, []).append((row["image_id"], row[f"{name}_score"]))
    ranks = {}
    for group in members.values():
        names = np.array([image_id for image_id, _ in group])
        order = np.lexsort((names, -np.array([value for _, value in group])))
        ranks |= {str(image_id): rank for rank, image_id in enumerate(names[order])}
    return ranks


def check(table: pa.Table, config: FilterConfig, *, shard_rows: int, rows_per_task: int) -> None:
    expected = filter_by_rank(table, config)
    with scratch_folder() as folder:
        store = write_scores(open_store(str(folder)), table, shard_rows)
        summary = filter_shards(store, store, config=config, rows_per_task=rows_per_task)
        kept = read_shards(store, "kept/")
        scored, judged = committed(store, "scores/").values(), committed(store, "kept/").values()
        left = store.list("filter-scratch")
    assert kept.schema.equals(KEPT)
    assert kept["image_id"].to_pylist() == table["image_id"].to_pylist()  # row by row
    assert [entry.rows for entry in scored] == [entry.rows for entry in judged]
    assert [e.name.partition("/")[2] for e in scored] == [e.name.partition("/")[2] for e in judged]
    assert kept.sort_by("image_id").equals(expected.kept)
    assert repr(summary) == repr(expected.summary)  # also the order of groups and the sign of zero
    assert left == []
    for name in ("emo", "sem"):
        ranks = numpy_ranks(table, config, name) if name in config.criteria else {}
        found = zip(kept["image_id"].to_pylist(), kept[f"{name}_rank"].to_pylist(), strict=True)
        assert {image_id: rank for image_id, rank in found if rank is not None} == ranks


@settings(max_examples=60)
@given(
    st.one_of(rows_with(tied), rows_with(odd), rows_with(score)),
    configs(),
    st.integers(1, 12),
    st.integers(1, 40),
    st.randoms(),
)
def test_equals_the_filter_in_memory(values, config, shard_rows, rows_per_task, random):
    random.shuffle(values)
    table = pa.Table.from_pylist(values, schema=SCORES)
    check(table, config, shard_rows=shard_rows, rows_per_task=rows_per_task)


@pytest.mark.parametrize("scope", ["global", "per_emotion"])
@pytest.mark.parametrize("rows_per_task", [250, 700, 10_000])
@pytest.mark.parametrize("levels", [1, 20])
def test_equals_the_filter_in_memory_on_many_tied_rows(scope: Any, rows_per_task: int, levels: int) -> None:
    config = FilterConfig(eta=12.5, delta=66.6, scope=scope)
    check(simple(2000, levels=levels), config, shard_rows=90, rows_per_task=rows_per_task)


def test_keys_order_as_the_scores_do() -> None:
    scores = np.array([np.inf, 3e38, 1.0, 0.5, HALF, 3 * TINY, TINY, 0.0, -TINY, -HALF, -1.0, -np.inf])
    keys = score_keys(scores, np.zeros(len(scores), dtype=np.int64))
    assert (np.diff(keys.astype(object)) > 0).all()
    same = score_keys(np.zeros(2), np.array([7, 2**32 - 1]))
    assert same[0] < same[1]
    assert same[0] >> np.uint64(32) == same[1] >> np.uint64(32)


def test_no_piece_is_larger_than_a_task_may_hold(tmp_path: Path) -> None:
    store = write_scores(open_store(str(tmp_path)), simple(3000, levels=1), 50)
    sizes: list[int] = []

    def watch(work, items):
        for item in items:
            sizes.append(sum(s.rows for s in item.shards) if hasattr(item, "shards") else 0)
            found = work(item)
            sizes.append(found if isinstance(found, int) else 0)  # rows of a partition
            yield found

    filter_shards(store, store, config=FilterConfig(), rows_per_task=400, run=watch)
    assert 200 < max(sizes) <= 400
    assert sum(size > 0 for size in sizes) > 50


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_scores(open_store(str(tmp_path)), simple(300), 40)


def test_entries_tell_what_the_verdicts_were_made_for_and_with(store: Store) -> None:
    config = FilterConfig()
    filter_shards(store, store, config=config, rows_per_task=100)
    hashes = {name: entry.sha256 for name, entry in committed(store, "scores/").items()}
    entries = committed(store, "kept/").values()
    assert {entry.plan_hash for entry in entries} == {fingerprint({"filter": config, "scores": hashes})}
    assert all(entry.versions == library_versions() for entry in entries)
    assert all(0 < entry.seconds < 60 for entry in entries)


class ProcessDiedError(Exception):
    """The process died."""


def die_after(pieces: int):
    """A runner that does so many pieces of work."""
    made: Counter[str] = Counter()

    def run(work, items):
        for item in items:
            if made["pieces"] == pieces:
                raise ProcessDiedError
            made["pieces"] += 1
            yield work(item)

    return run


def records_of(store: Store) -> dict[str, bytes]:
    """What is recorded as done in the interim results."""
    return {key: store.read_bytes(key) for key in store.list("filter-scratch") if key.endswith(".json")}


@pytest.mark.parametrize("pieces", [3, 6, 10, 14, 18, 26, 31])
def test_an_interrupted_run_goes_on_where_it_stopped(store: Store, pieces: int) -> None:
    table = read_shards(store, "scores/")
    with pytest.raises(ProcessDiedError):
        filter_shards(store, store, config=FilterConfig(), rows_per_task=100, run=die_after(pieces))
    records = records_of(store)
    assert len(records) == pieces
    for key in records:  # nothing of what is recorded is made again: what it was made of is not read again
        store.write_bytes(key, records[key] + b" ")

    def spy(work, items):
        found = in_turn(work, items)
        for key in records:
            assert store.read_bytes(key) == records[key] + b" "
        return found

    summary = filter_shards(store, store, config=FilterConfig(), rows_per_task=100, run=spy)
    expected = filter_by_rank(table, FilterConfig())
    assert summary == expected.summary
    assert read_shards(store, "kept/").sort_by("image_id").equals(expected.kept)


def refuse(work, items):
    raise AssertionError("nothing should be run")


def test_a_finished_run_is_not_run_again(store: Store) -> None:
    first = filter_shards(store, store, config=FilterConfig())
    assert filter_shards(store, store, config=FilterConfig(), rows_per_task=7, run=refuse) == first


def test_a_lost_shard_of_verdicts_is_made_again(store: Store) -> None:
    first = filter_shards(store, store, config=FilterConfig(), rows_per_task=100)
    before, data = committed(store, "kept/"), store.read_bytes("kept/part-00002.parquet")
    store.delete("kept/part-00002.parquet")
    store.delete("manifest/kept/part-00002.json")
    assert filter_shards(store, store, config=FilterConfig(), rows_per_task=100) == first
    after = committed(store, "kept/")
    assert store.read_bytes("kept/part-00002.parquet") == data
    assert {n: e.sha256 for n, e in before.items()} == {n: e.sha256 for n, e in after.items()}


def test_making_a_lost_shard_again_can_be_interrupted_too(store: Store) -> None:
    first = filter_shards(store, store, config=FilterConfig(), rows_per_task=100)
    store.delete("manifest/kept/part-00002.json")
    for pieces in (15, 10):  # the second call goes on where the first one stopped, and not as far
        with pytest.raises(ProcessDiedError):
            filter_shards(store, store, config=FilterConfig(), rows_per_task=100, run=die_after(pieces))
        assert len(records_of(store)) == 15
    assert filter_shards(store, store, config=FilterConfig(), rows_per_task=100) == first


def test_interim_results_that_were_half_cleared_away_are_not_used(store: Store) -> None:
    records: dict[str, bytes] = {}

    def run(work, items):
        found = in_turn(work, items)
        records.update(records_of(store))
        return found

    first = filter_shards(store, store, config=FilterConfig(), rows_per_task=100, run=run)
    assert len(records) == 32
    for key, record in records.items():  # as if clearing had stopped when only the arrays were gone
        store.write_bytes(key, record)
    store.delete("manifest/kept/part-00002.json")
    store.delete("kept/part-00002.parquet")
    assert filter_shards(store, store, config=FilterConfig(), rows_per_task=100) == first
    assert len(committed(store, "kept/")) == 8
    assert store.list("filter-scratch") == []


def test_verdicts_by_other_settings_are_refused_before_anything_runs(store: Store) -> None:
    filter_shards(store, store, config=FilterConfig())
    with pytest.raises(ValueError, match="by other settings: choose an empty folder"):
        filter_shards(store, store, config=FilterConfig(eta=30), run=refuse)


def test_verdicts_on_other_scores_are_refused(store: Store) -> None:
    filter_shards(store, store, config=FilterConfig())
    commit_shard(store, "scores/part-00099", simple(0), plan_hash="p", versions={})
    with pytest.raises(ValueError, match="on other scores"):
        filter_shards(store, store, config=FilterConfig(), run=refuse)


@pytest.mark.parametrize("rows_per_task", [7, 1000])
def test_an_image_that_is_scored_twice_is_named(store: Store, rows_per_task: int) -> None:
    again = simple(300).slice(120, 1)
    commit_shard(store, "scores/part-00099", again, plan_hash="p", versions={})
    with pytest.raises(ValueError, match=f"'{again['image_id'][0]}' more than once"):
        filter_shards(store, store, config=FilterConfig(), rows_per_task=rows_per_task)
    assert committed(store, "kept/") == {}


def test_scores_of_another_store_and_folder(store: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "target"))
    commit_shard(store, "other/part-00000", simple(8), plan_hash="p", versions={})
    assert filter_shards(store, target, config=FilterConfig(), folder="other").total == 8
    assert list(committed(target)) == ["kept/part-00000"]


def test_bad_input_is_refused(store: Store, tmp_path: Path) -> None:
    empty = open_store(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="no committed shards"):
        filter_shards(empty, empty, config=FilterConfig())
    with pytest.raises(ValueError, match="rows_per_task must be at least 1, got 0"):
        filter_shards(store, store, config=FilterConfig(), rows_per_task=0)
    nameless = simple(3).set_column(0, "image_id", pa.array(["a", None, "b"]))
    commit_shard(empty, "scores/part-00000", nameless, plan_hash="p", versions={})
    with pytest.raises(ValueError, match="1 score rows have no image_id"):
        filter_shards(empty, empty, config=FilterConfig())
    with pytest.raises(ValueError, match="1 score rows have no image_id"):
        filter_by_rank(nameless, FilterConfig())
    moodless = simple(3).set_column(1, "emotion", pa.array(["awe", None, "awe"]))
    for scope, kept in (("global", 3), ("per_emotion", None)):
        config = FilterConfig(eta=0, delta=100, scope=scope)  # type: ignore[arg-type]
        other = open_store(str(tmp_path / scope))
        commit_shard(other, "scores/part-00000", moodless, plan_hash="p", versions={})
        if kept:
            assert filter_shards(other, other, config=config).kept == kept
        else:
            with pytest.raises(ValueError, match="1 score rows have no emotion"):
                filter_shards(other, other, config=config)


def test_a_shard_without_scores_and_a_damaged_one_are_named(store: Store, tmp_path: Path) -> None:
    data = store.read_bytes("scores/part-00003.parquet")
    store.write_bytes("scores/part-00003.parquet", data[:-40])
    with pytest.raises(StoreError, match=r"part-00003.parquet is no readable Parquet"):
        filter_shards(store, store, config=FilterConfig())
    store.write_bytes("scores/part-00003.parquet", store.read_bytes("scores/part-00007.parquet"))
    with pytest.raises(StoreError, match=r"part-00003.parquet has 20 rows, its entry says 40"):
        filter_shards(store, store, config=FilterConfig())
    other = open_store(str(tmp_path / "other"))
    table = simple(3).drop_columns(["sem_score"])
    commit_shard(other, "scores/part-00000", table, plan_hash="p", versions={})
    with pytest.raises(ValueError, match=r"part-00000\.parquet table does not fit its schema: .*'sem_score'"):
        filter_shards(other, other, config=FilterConfig())


def test_the_band_of_an_emotion_without_ranked_rows_is_empty(store: Store, tmp_path: Path) -> None:
    table = simple(16).set_column(11, SCORES.field("reason"), pa.array([None, "image_missing"] * 8))
    config = FilterConfig(scope="per_emotion")
    check(table, config, shard_rows=5, rows_per_task=6)
    assert rank_band(0, eta=20, delta=80) == (0, 0)
