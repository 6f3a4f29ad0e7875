"""Dual-metric filter (Algorithm 1): keep the rank band between eta and delta percent of each score.

Exact, and a function of the set of score rows alone: neither their order nor ties change it.
"""

# M rows, G groups

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.config import FilterConfig
from uniemo_ray.feedback.schema import KEPT, SCORES, require_columns

CRITERIA: tuple[str, ...] = ("emo", "sem")
NOT_SCORED = "not_scored"
NON_FINITE = "non_finite"
REASONS: tuple[str | None, ...] = (
    None,  # kept
    NOT_SCORED,
    NON_FINITE,
    *(f"{name}_{side}_rank" for name in CRITERIA for side in ("too_high", "too_low")),
)
"""Why a row is rejected; rows carry the position in this list while the filter runs."""
NEEDED = pa.schema([SCORES.field(n) for n in ("image_id", "emotion", "emo_score", "sem_score", "reason")])
ALL = "all"
"""Name of the one group of `scope: global`."""

Ints = NDArray[np.int64]
Codes = NDArray[np.int8]


class Band(NamedTuple):
    """Kept ranks `first <= r < end` (0-based, 0 is best)."""

    first: int
    end: int


class FilterResult(NamedTuple):
    """Verdicts and their summary."""

    kept: pa.Table
    """KEPT, one row per score row, by ascending image id."""
    summary: dict[str, Any]
    """JSON-ready: `total`, `ranked`, `kept` (counts), `reasons` (count of each reason for rejection),
    `not_scored` (count of each reason that the score rows gave) and `thresholds`: one entry per group
    and criterion with `group`, `criterion`, `ranked`, `first_rank`, `end_rank` and the `best_score`
    and `worst_score` inside that band (null when the band is empty)."""


@dataclass(frozen=True, eq=False)
class _Groups:
    """Rows that are ranked together."""

    names: tuple[str, ...]
    codes: Ints  # (M,)
    sizes: Ints  # (G,) ranked rows


def rank_band(total: int, *, eta: float, delta: float) -> Band:
    """`floor(eta m / 100) <= r < floor(delta m / 100)` for m = `total` ranked rows.

    Computed with the decimal numbers as written: 33.3 % of 1000 is 333, which floats may miss.
    """
    first, end = (floor(Fraction(repr(share)) * total / 100) for share in (eta, delta))
    return Band(first, end)


def filter_by_rank(scores: pa.Table, config: FilterConfig) -> FilterResult:
    """Rank score rows by each criterion and keep those inside the band of all criteria.

    Best first; ties by ascending image id. A row is ranked when it has no `reason` and every
    criterion's score is finite; the others are rejected as `not_scored` or `non_finite`. A ranked row
    is rejected as `emo_too_high_rank`, `emo_too_low_rank`, `sem_too_high_rank` or `sem_too_low_rank`
    ("high" is better than the band), the first that applies in this order.

    Args:
        scores: SCORES rows in any order (only id, emotion, the two scores and the reason are read).
        config: band, scope and criteria.

    Raises:
        ValueError: when columns are missing or an image id occurs twice.
    """
    require_columns(scores, NEEDED, name="scores")
    table = scores.select(NEEDED.names).sort_by("image_id")
    _require_distinct(table["image_id"])
    criteria: list[str] = [name for name in CRITERIA if name in config.criteria]
    values = {name: _floats(table[f"{name}_score"]) for name in criteria}
    reasons = _unranked_reasons(table, values)
    is_ranked = reasons == 0
    groups = _group(table["emotion"], is_ranked, is_global=config.scope == "global")
    bands = [rank_band(int(m), eta=config.eta, delta=config.delta) for m in groups.sizes]
    ranks, thresholds = {}, []
    for name in criteria:
        ranks[name] = _ranks(values[name], is_ranked, groups)
        _reject(reasons, ranks[name], bands, groups=groups, name=name)
        thresholds += _thresholds(values[name], ranks[name], bands, groups=groups, name=name)
    counts = {"total": len(table), "ranked": int(is_ranked.sum()), "kept": int((reasons == 0).sum())}
    kept = _verdicts(table["image_id"], ranks, reasons)
    details = {"reasons": _count(kept["reason"]), "not_scored": _count(table["reason"])}
    return FilterResult(kept, {**counts, **details, "thresholds": thresholds})


def _require_distinct(image_ids: pa.ChunkedArray) -> None:
    if len(image_ids) != pc.count_distinct(image_ids, mode="all").as_py():
        twice = next(v["values"] for v in pc.value_counts(image_ids).to_pylist() if v["counts"] > 1)
        raise ValueError(f"scores hold image {twice!r} more than once: each image may be scored only once")


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _unranked_reasons(table: pa.Table, values: dict[str, NDArray[np.float64]]) -> Codes:
    """(M,) reason per row, 0 for a row that can be ranked. Nulls arrive as NaN in `values`."""
    reasons = np.zeros(len(table), dtype=np.int8)
    for column in values.values():
        reasons[~np.isfinite(column)] = REASONS.index(NON_FINITE)
    for name in values:
        reasons[table[f"{name}_score"].is_null().to_numpy()] = REASONS.index(NOT_SCORED)
    reasons[table["reason"].is_valid().to_numpy()] = REASONS.index(NOT_SCORED)
    return reasons


def _group(emotions: pa.ChunkedArray, is_ranked: NDArray[np.bool_], *, is_global: bool) -> _Groups:
    if is_global:
        return _Groups((ALL,), np.zeros(len(emotions), dtype=np.int64), np.array([is_ranked.sum()]))
    names = sorted(pc.unique(emotions).to_pylist())
    codes = pc.index_in(emotions, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)
    return _Groups(tuple(names), codes, np.bincount(codes[is_ranked], minlength=len(names)))


def _ranks(values: NDArray[np.float64], is_ranked: NDArray[np.bool_], groups: _Groups) -> Ints:
    """(M,) rank of each row in its group, -1 for rows that are not ranked."""
    rows = np.flatnonzero(is_ranked)
    # Rows come by ascending id, so the row number breaks ties.
    order = rows[np.lexsort((rows, -values[rows], groups.codes[rows]))]
    starts = np.cumsum(groups.sizes) - groups.sizes
    ranks = np.full(len(values), -1, dtype=np.int64)
    ranks[order] = np.arange(len(order)) - starts[groups.codes[order]]
    return ranks


def _reject(reasons: Codes, ranks: Ints, bands: list[Band], *, groups: _Groups, name: str) -> None:
    limits = np.array(bands, dtype=np.int64).reshape(-1, 2)[groups.codes]  # (M, 2)
    is_open = reasons == 0
    reasons[is_open & (ranks < limits[:, 0])] = REASONS.index(f"{name}_too_high_rank")
    reasons[is_open & (ranks >= limits[:, 1])] = REASONS.index(f"{name}_too_low_rank")


def _thresholds(
    values: NDArray[np.float64], ranks: Ints, bands: list[Band], *, groups: _Groups, name: str
) -> list[dict[str, Any]]:
    rows = []
    for code, (group, band) in enumerate(zip(groups.names, bands, strict=True)):
        inside = values[(groups.codes == code) & (ranks >= band.first) & (ranks < band.end)]
        edges = (float(inside.max()), float(inside.min())) if len(inside) else (None, None)
        place = {"group": group, "criterion": name, "ranked": int(groups.sizes[code])}
        limits = {"first_rank": band.first, "end_rank": band.end}
        rows.append({**place, **limits, "best_score": edges[0], "worst_score": edges[1]})
    return rows


def _verdicts(image_ids: pa.ChunkedArray, ranks: dict[str, Ints], reasons: Codes) -> pa.Table:
    none = np.full(len(reasons), -1, dtype=np.int64)
    columns = [ranks.get(name, none) for name in CRITERIA]
    arrays = [pa.array(column, pa.int64(), mask=column < 0) for column in columns]
    names = pa.array(REASONS, pa.string()).take(pa.array(reasons))
    return pa.Table.from_arrays([image_ids, *arrays, pa.array(reasons == 0), names], schema=KEPT)


def _count(reasons: pa.ChunkedArray) -> dict[str, int]:
    found = {row["values"]: row["counts"] for row in pc.value_counts(reasons.drop_null()).to_pylist()}
    return dict(sorted(found.items()))
