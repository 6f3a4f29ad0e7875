"""A large round draws a fair sample, and its counts stay those of all images."""

import numpy as np
import pyarrow as pa
import pytest

from uniemo_ray.config import FilterConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.report.figures import rank_scatter
from uniemo_ray.report.rank_sample import sample_ranks, with_verdicts

COUNT, MOST = 30_000, 2_000


def ranked(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    ranks = [rng.permutation(count) for _ in range(2)]
    band = range(count // 5, count // 5 * 4)
    return pa.table({
        "image_id": [f"r1-{EMOTIONS[i % 8]}-{i:06d}" for i in range(count)],
        "emotion": [EMOTIONS[i % 8] for i in range(count)],
        "emo_score": 1 - ranks[0] / count, "sem_score": 1 - ranks[1] / count,
        "emo_rank": ranks[0], "sem_rank": ranks[1],
        "kept": [a in band and b in band for a, b in zip(*ranks, strict=True)],
    })  # fmt: skip


def parts(table: pa.Table, size: int) -> list[pa.Table]:
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


def test_a_small_round_is_drawn_whole_however_its_rows_are_split() -> None:
    table = ranked(800)
    whole, split = (sample_ranks(parts(table, size), ("emo", "sem")) for size in (800, 7))
    assert whole.rows.equals(split.rows)
    assert whole.rows.num_rows == 800
    assert (whole.sizes, whole.kept) == (split.sizes, split.kept)


def test_a_large_round_is_thinned_the_same_each_time_and_counted_whole() -> None:
    table = ranked(COUNT)
    found = sample_ranks(parts(table, 999), ("emo", "sem"), most=MOST)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(COUNT)))
    assert found.rows.equals(sample_ranks(parts(shuffled, 5000), ("emo", "sem"), most=MOST).rows)
    assert found.rows.num_rows == MOST
    assert found.kept == sum(table["kept"].to_pylist())
    assert found.kept + found.dropped == COUNT == sum(found.sizes.values())
    chart = rank_scatter(found, FilterConfig())
    assert (chart.kept, chart.drawn) == (found.kept, MOST)
    assert len(chart.kept_path) + len(chart.dropped_path) < 15 * MOST
    # as many dots in each tenth of the chart as in that of all images, within chance
    shares = np.array([row["emo_rank"] for row in found.rows.to_pylist()]) / COUNT
    counts = np.histogram(shares, bins=10, range=(0, 1))[0] / MOST
    assert np.abs(counts - 0.1).max() < 5 * np.sqrt(0.09 / MOST)
    assert abs(sum(found.rows["kept"].to_pylist()) / MOST - found.kept / COUNT) < 5 * np.sqrt(0.25 / MOST)


def test_images_without_a_rank_are_counted_and_not_drawn() -> None:
    table = ranked(100)
    ranks = table["sem_rank"].to_pylist()
    table = table.set_column(5, "sem_rank", pa.array([None, None, *ranks[2:]], pa.int64()))
    assert sample_ranks([table], ("emo", "sem")).unranked == 2
    assert sample_ranks([table], ("emo",)).unranked == 0


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match="lack emotion, kept"):
        sample_ranks([ranked(8).drop_columns(["kept", "emotion"])], ("emo",))


def test_verdicts_come_to_their_scores_row_by_row() -> None:
    scores = pa.table({"image_id": ["b", "a"], "emotion": ["awe", "fear"], "emo_score": [0.2, 0.1],
                       "sem_score": [0.4, 0.3], "reason": [None, None]})  # fmt: skip
    kept = pa.table({"image_id": ["b", "a"], "emo_rank": [0, 1], "sem_rank": [0, 1], "kept": [True, False],
                     "reason": [None, "emo_too_low_rank"]})  # fmt: skip
    joined = with_verdicts(scores, kept).to_pylist()
    assert [(row["image_id"], row["emotion"], row["emo_rank"], row["kept"]) for row in joined] == [
        ("b", "awe", 0, True),
        ("a", "fear", 1, False),
    ]
    with pytest.raises(ValueError, match="not on these score rows"):
        with_verdicts(scores, kept.take(pa.array([1, 0])))
