"""The dual-metric filter (Algorithm 1) by plain sorts of one table: what `rank_filter` must agree with."""

# M rows

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import FilterConfig
from uniemo_ray.feedback.schema import SCORES, require_columns
from uniemo_ray.feedback.verdicts import (
    NEEDED,
    FilterSummary,
    Ints,
    ScoreRows,
    judge,
    rank_band,
    read_scores,
    summarise,
)

Row = dict[str, Any]


def to_table(values: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(values, schema=SCORES)


def simple(scores: list[float], *, sem: list[float] | None = None) -> pa.Table:
    pairs = zip(scores, sem or scores, strict=True)
    return to_table(
        [
            {"image_id": f"i{n}", "emotion": "awe", "emo_score": e, "sem_score": s, "reason": None}
            for n, (e, s) in enumerate(pairs)
        ]
    )


class FilterResult(NamedTuple):
    """Verdicts and their summary."""

    kept: pa.Table
    """KEPT, one row per score row, by ascending image id."""
    summary: FilterSummary


def filter_by_rank(scores: pa.Table, config: FilterConfig) -> FilterResult:
    """Verdicts on score rows in any order, by the rules that `rank_filter.filter_shards` states.

    Args:
        scores: SCORES rows in any order (only id, emotion, the two scores and the reason are read).
        config: band, scope and criteria.

    Raises:
        ValueError: when columns are missing, an image id is null or occurs twice, or an emotion is null
            that the scope needs.
    """
    require_columns(scores, NEEDED, name="scores")
    table = scores.select(NEEDED.names).sort_by("image_id")
    _require_distinct(table["image_id"])
    rows = read_scores(table, config)
    sizes = rows.sizes()
    bands = {group: rank_band(m, eta=config.eta, delta=config.delta) for group, m in sizes.items()}
    kept, tally = judge(table, rows, {name: _ranks(rows, name) for name in rows.values}, bands)
    return FilterResult(kept, summarise(tally, sizes, bands))


def _require_distinct(image_ids: pa.ChunkedArray) -> None:
    if image_ids.null_count:
        raise ValueError(f"{image_ids.null_count} score rows have no image_id: score them again")
    if len(image_ids) != pc.count_distinct(image_ids).as_py():
        twice = next(v["values"] for v in pc.value_counts(image_ids).to_pylist() if v["counts"] > 1)
        raise ValueError(f"scores hold image {twice!r} more than once: each image may be scored only once")


def _ranks(rows: ScoreRows, name: str) -> Ints:
    """(M,) rank of each row in its group, -1 for rows that are not ranked."""
    ranks = np.full(len(rows.codes), -1, dtype=np.int64)
    for group in rows.groups:
        members = rows.members(group)
        # Rows come by ascending id, so a stable sort breaks ties by id.
        order = members[np.argsort(-rows.values[name][members], kind="stable")]
        ranks[order] = np.arange(len(order))
    return ranks
