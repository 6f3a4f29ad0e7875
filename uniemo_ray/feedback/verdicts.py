"""Rules of the dual-metric filter (Algorithm 1): who is ranked, which ranks stay, what the summary says.

`rank_filter` finds the ranks and applies these rules.
"""

# M rows

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.config import FilterConfig
from uniemo_ray.feedback.schema import KEPT, SCORES

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
Floats = NDArray[np.float64]
Codes = NDArray[np.int8]
Edges = list[float] | None
"""Best and worst score inside a band; None for a band without rows."""


class Band(NamedTuple):
    """Kept ranks `first <= r < end` (0-based, 0 is best)."""

    first: int
    end: int


def rank_band(total: int, *, eta: float, delta: float) -> Band:
    """`floor(eta m / 100) <= r < floor(delta m / 100)` for m = `total` ranked rows.

    Computed with the decimal numbers as written: 33.3 % of 1000 is 333, which floats may miss.
    """
    first, end = (floor(Fraction(repr(share)) * total / 100) for share in (eta, delta))
    return Band(first, end)


def used_criteria(config: FilterConfig) -> tuple[str, ...]:
    """The criteria in the order in which they reject."""
    return tuple(name for name in CRITERIA if name in config.criteria)


class ScoreRows(NamedTuple):
    """What the filter reads of M score rows."""

    values: dict[str, Floats]
    """Criterion to scores (M,), NaN where there is none."""
    reasons: Codes
    """(M,) position in REASONS; 0 for a row that is ranked."""
    groups: tuple[str, ...]
    """Names of the rows' groups, sorted."""
    codes: Ints
    """(M,) position of each row's group in `groups`."""

    def members(self, group: str) -> Ints:
        """Ranked rows of a group, ascending."""
        return np.flatnonzero((self.reasons == 0) & (self.codes == self.groups.index(group)))

    def sizes(self) -> dict[str, int]:
        """Ranked rows of each group."""
        counts = np.bincount(self.codes[self.reasons == 0], minlength=len(self.groups))
        return dict(zip(self.groups, counts.tolist(), strict=True))


def read_scores(table: pa.Table, config: FilterConfig) -> ScoreRows:
    """Decide which rows are ranked, and with which others.

    Raises:
        ValueError: a row without an emotion, when each emotion is ranked by itself.
    """
    values = {name: _floats(table[f"{name}_score"]) for name in used_criteria(config)}
    reasons = _unranked_reasons(table, values)
    if config.scope == "global":
        return ScoreRows(values, reasons, (ALL,), codes=np.zeros(len(table), dtype=np.int64))
    names, codes = _encode(table["emotion"])
    return ScoreRows(values, reasons, names, codes)


@dataclass(frozen=True)
class Tally:
    """Counts of a part of the rows; parts merge in any order."""

    total: int
    kept: int
    reasons: dict[str, int]
    """Count of each reason for rejection."""
    not_scored: dict[str, int]
    """Count of each reason that the score rows gave."""
    edges: dict[str, dict[str, Edges]]
    """Criterion to group to best and worst score inside the band."""

    def merge(self, other: "Tally") -> "Tally":
        """The tally of both parts; they must be judged by the same criteria."""
        return Tally(
            self.total + other.total,
            self.kept + other.kept,
            reasons=_sorted(Counter(self.reasons) + Counter(other.reasons)),
            not_scored=_sorted(Counter(self.not_scored) + Counter(other.not_scored)),
            edges={name: _merge_edges(self.edges[name], other.edges[name]) for name in self.edges},
        )


@dataclass(frozen=True)
class KeptBand:
    """The ranks and scores that one criterion keeps in one group."""

    group: str
    criterion: str
    ranked: int
    """Ranked rows of the group."""
    first_rank: int
    end_rank: int
    """First rank behind the band; rank 0 is the best."""
    best_score: float | None
    """Best score inside the band; None when the band is empty."""
    worst_score: float | None
    """Worst score inside the band; None when the band is empty."""


@dataclass(frozen=True)
class FilterSummary:
    """What the filter did with all rows. `kept/summary.json` and the step's record hold `to_dict()`."""

    total: int
    ranked: int
    kept: int
    reasons: dict[str, int]
    """Count of each reason for rejection."""
    not_scored: dict[str, int]
    """Count of each reason that the score rows gave."""
    thresholds: tuple[KeptBand, ...]
    """One band for each criterion and group."""

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain JSON values, keyed by the names of the fields."""
        return {**asdict(self), "thresholds": [asdict(band) for band in self.thresholds]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "FilterSummary":
        """The summary that `to_dict` gave."""
        bands = tuple(KeptBand(**band) for band in values["thresholds"])
        return FilterSummary(**{**values, "thresholds": bands})


class Verdicts(NamedTuple):
    """What became of some score rows."""

    kept: pa.Table
    """KEPT, row by row."""
    tally: Tally


def judge(table: pa.Table, rows: ScoreRows, ranks: Mapping[str, Ints], bands: Mapping[str, Band]) -> Verdicts:
    """Keep the rows inside the band of all criteria, name a reason for the others.

    Args:
        table: NEEDED columns, M rows.
        rows: what `read_scores` says of them.
        ranks: criterion to rank (M,) in the row's whole group, -1 for rows that are not ranked.
        bands: group to band; a group without ranked rows may be absent.
    """
    of_group = [bands.get(group, Band(0, 0)) for group in rows.groups]
    limits = np.array(of_group, dtype=np.int64).reshape(-1, 2)[rows.codes]  # (M, 2)
    reasons, edges = rows.reasons.copy(), {}
    for name, column in ranks.items():
        _reject(reasons, column, limits, name=name)
        is_inside = (column >= limits[:, 0]) & (column < limits[:, 1])
        edges[name] = {
            group: _edges(rows.values[name][is_inside & (rows.codes == code)])
            for code, group in enumerate(rows.groups)
        }
    kept = _to_table(table["image_id"], ranks, reasons)
    counts = (_count(kept["reason"]), _count(table["reason"]))
    return Verdicts(kept, Tally(len(table), int((reasons == 0).sum()), *counts, edges=edges))


def summarise(tally: Tally, sizes: Mapping[str, int], bands: Mapping[str, Band]) -> FilterSummary:
    """Counts of all rows, and one band for each criterion and group.

    Args:
        tally: all rows.
        sizes: group to number of ranked rows.
        bands: group to band; a group without ranked rows may be absent.
    """
    thresholds = []
    for name, groups in tally.edges.items():
        for group, edges in sorted(groups.items()):
            band, (best, worst) = bands.get(group, Band(0, 0)), edges or (None, None)
            thresholds.append(KeptBand(group, name, sizes.get(group, 0), band.first, band.end, best, worst))
    return FilterSummary(
        total=tally.total,
        ranked=sum(sizes.values()),
        kept=tally.kept,
        reasons=tally.reasons,
        not_scored=tally.not_scored,
        thresholds=tuple(thresholds),
    )


def _floats(column: pa.ChunkedArray) -> Floats:
    # Adding 0 turns -0.0 into 0.0: they are equal and must stay so where bits are compared.
    return np.asarray(column.to_numpy(), dtype=np.float64) + 0.0


def _encode(emotions: pa.ChunkedArray) -> tuple[tuple[str, ...], Ints]:
    if emotions.null_count:
        raise ValueError(f"{emotions.null_count} score rows have no emotion: use scope global or score again")
    names = sorted(pc.unique(emotions).to_pylist())
    codes = pc.index_in(emotions, value_set=pa.array(names, pa.string())).to_numpy()
    return tuple(names), codes.astype(np.int64)


def _unranked_reasons(table: pa.Table, values: Mapping[str, Floats]) -> Codes:
    """(M,) reason per row, 0 for a row that can be ranked. Nulls arrive as NaN in `values`."""
    reasons = np.zeros(len(table), dtype=np.int8)
    for column in values.values():
        reasons[~np.isfinite(column)] = REASONS.index(NON_FINITE)
    for name in values:
        reasons[table[f"{name}_score"].is_null().to_numpy()] = REASONS.index(NOT_SCORED)
    reasons[table["reason"].is_valid().to_numpy()] = REASONS.index(NOT_SCORED)
    return reasons


def _reject(reasons: Codes, ranks: Ints, limits: Ints, *, name: str) -> None:
    is_open = reasons == 0
    reasons[is_open & (ranks < limits[:, 0])] = REASONS.index(f"{name}_too_high_rank")
    reasons[is_open & (ranks >= limits[:, 1])] = REASONS.index(f"{name}_too_low_rank")


def _edges(inside: Floats) -> Edges:
    return [float(inside.max()), float(inside.min())] if len(inside) else None


def _merge_edges(ours: Mapping[str, Edges], theirs: Mapping[str, Edges]) -> dict[str, Edges]:
    merged = {}
    for group in sorted({*ours, *theirs}):
        scores = [*(ours.get(group) or ()), *(theirs.get(group) or ())]
        merged[group] = [max(scores), min(scores)] if scores else None
    return merged


def _to_table(image_ids: pa.ChunkedArray, ranks: Mapping[str, Ints], reasons: Codes) -> pa.Table:
    none = np.full(len(reasons), -1, dtype=np.int64)
    columns = [ranks.get(name, none) for name in CRITERIA]
    arrays = [pa.array(column, pa.int64(), mask=column < 0) for column in columns]
    names = pa.array(REASONS, pa.string()).take(pa.array(reasons))
    return pa.Table.from_arrays([image_ids, *arrays, pa.array(reasons == 0), names], schema=KEPT)


def _count(reasons: pa.ChunkedArray) -> dict[str, int]:
    found = {row["values"]: row["counts"] for row in pc.value_counts(reasons.drop_null()).to_pylist()}
    return _sorted(found)


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
