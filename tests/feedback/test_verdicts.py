"""The rules of the dual-metric filter, on one table, against the paper's words as plain Python."""

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feedback.reference_filter import FilterResult, Row, filter_by_rank, simple, to_table
from uniemo_ray.config import FilterConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import KEPT
from uniemo_ray.feedback.verdicts import FilterSummary, rank_band

CRITERIA = [("emo", "sem"), ("sem", "emo"), ("emo",), ("sem",)]

tied = st.sampled_from([0.0, 0.25, 0.5, 1.0])
score = st.one_of(tied, st.floats(0, 1, width=32), st.sampled_from([None, math.nan, math.inf]))
row = st.fixed_dictionaries(
    {
        "emotion": st.sampled_from(EMOTIONS[:3]),
        "emo_score": score,
        "sem_score": score,
        "reason": st.sampled_from([None, None, None, "image_missing"]),
    }
)
ids = st.text("aZ0-é字", min_size=1, max_size=4)
rows = st.dictionaries(ids, row, max_size=40).map(lambda d: [{"image_id": k, **v} for k, v in d.items()])
percent = st.one_of(st.integers(0, 100).map(float), st.decimals(0, 100, places=2).map(float))


def reference(values: list[Row], config: FilterConfig) -> dict[str, tuple[bool, str | None]]:
    """Image id to (kept, reason), written as the paper says it: sort a list, cut a band."""
    verdict: dict[str, tuple[bool, str | None]] = {}
    groups: dict[str, list[Row]] = {}
    wanted = [name for name in ("emo", "sem") if name in config.criteria]
    for one in values:
        scores = [one[f"{name}_score"] for name in wanted]
        if one["reason"] is not None or any(s is None for s in scores):
            verdict[one["image_id"]] = (False, "not_scored")
        elif not np.isfinite(scores).all():
            verdict[one["image_id"]] = (False, "non_finite")
        else:
            key = one["emotion"] if config.scope == "per_emotion" else "all"
            groups.setdefault(key, []).append(one)
    for members in groups.values():
        m = len(members)
        low = math.floor(Fraction(str(config.eta)) * m / 100)
        high = math.floor(Fraction(str(config.delta)) * m / 100)
        for name in wanted:
            ordered = sorted(members, key=lambda r: (-np.float32(r[f"{name}_score"]), r["image_id"]))
            for rank, one in enumerate(ordered):
                reason = None
                if rank < low:
                    reason = f"{name}_too_high_rank"
                elif rank >= high:
                    reason = f"{name}_too_low_rank"
                if verdict.get(one["image_id"], (True, None))[1] is None:
                    verdict[one["image_id"]] = (reason is None, reason)
    return verdict


def verdicts(result: FilterResult) -> dict[str, tuple[bool, str | None]]:
    return {r["image_id"]: (r["kept"], r["reason"]) for r in result.kept.to_pylist()}


@given(
    rows,
    percent,
    percent,
    st.sampled_from(CRITERIA),
    st.sampled_from(["global", "per_emotion"]),
    st.randoms(),
)
def test_equals_the_reference_in_any_order(
    values: list[Row], eta: float, delta: float, criteria: Any, scope: Any, random: Any
) -> None:
    if eta == delta:
        delta, eta = (delta, delta - 1) if delta >= 1 else (delta + 1, eta)
    config = FilterConfig(eta=min(eta, delta), delta=max(eta, delta), criteria=criteria, scope=scope)
    result = filter_by_rank(to_table(values), config)
    expected = reference(values, config)
    assert verdicts(result) == expected
    assert result.summary.kept == sum(kept for kept, _ in expected.values())
    assert sum(result.summary.reasons.values()) == len(values) - result.summary.kept
    random.shuffle(values)
    again = filter_by_rank(to_table(values), config)
    assert again.kept.equals(result.kept)
    assert again.summary == result.summary


@pytest.mark.parametrize("scope", ["global", "per_emotion"])
def test_equals_the_reference_on_many_random_and_tied_scores(scope: Any) -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.random((3000, 2)), 2).astype(np.float32)
    values = [
        {
            "image_id": f"i{n:05d}",
            "emotion": EMOTIONS[n % 8],
            "emo_score": float(emo),
            "sem_score": float(sem),
            "reason": None,
        }
        for n, (emo, sem) in enumerate(scores)
    ]
    config = FilterConfig(eta=12.5, delta=66.6, scope=scope)
    result = filter_by_rank(to_table(values), config)
    assert verdicts(result) == reference(values, config)
    assert 500 < result.summary.kept < 1500


def test_ranks_reasons_and_thresholds_of_ten_images() -> None:
    emo = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    sem = [0.5, 0.4, 0.9, 0.8, 0.3, 0.2, 0.1, 0.0, 0.6, 0.7]
    result = filter_by_rank(simple(emo, sem=sem), FilterConfig())
    assert result.kept.schema.equals(KEPT)
    assert result.kept["emo_rank"].to_pylist() == list(range(10))
    assert result.kept["sem_rank"].to_pylist() == [4, 5, 0, 1, 6, 7, 8, 9, 3, 2]
    assert [r["image_id"] for r in result.kept.to_pylist() if r["kept"]] == ["i4", "i5"]
    assert result.summary.reasons == {
        "emo_too_high_rank": 2,
        "emo_too_low_rank": 2,
        "sem_too_high_rank": 2,
        "sem_too_low_rank": 2,
    }
    first, second = result.summary.thresholds
    assert (first.group, first.criterion, first.ranked) == ("all", "emo", 10)
    assert (first.first_rank, first.end_rank) == (2, 8)
    assert (first.best_score, first.worst_score) == pytest.approx((0.7, 0.2))
    assert (second.criterion, second.best_score, second.worst_score) == pytest.approx(("sem", 0.7, 0.2))


def test_the_summary_keeps_the_json_of_older_runs() -> None:
    written = {
        "total": 3,
        "ranked": 2,
        "kept": 1,
        "reasons": {"emo_too_low_rank": 1, "not_scored": 1},
        "not_scored": {"image_corrupt": 1},
        "thresholds": [
            {
                "group": "all",
                "criterion": "emo",
                "ranked": 2,
                "first_rank": 0,
                "end_rank": 1,
                "best_score": 0.5,
                "worst_score": 0.5,
            }
        ],
    }
    values = [{**row, "image_id": f"i{n}"} for n, row in enumerate(simple([0.5, 0.25, 0.125]).to_pylist())]
    values[2]["reason"] = "image_corrupt"
    config = FilterConfig(eta=0, delta=50, criteria=("emo",))
    summary = filter_by_rank(to_table(values), config).summary
    assert json.dumps(summary.to_dict()) == json.dumps(written)  # keys in this order, too
    assert FilterSummary.from_dict(written) == summary


def test_ties_break_by_ascending_id() -> None:
    kept = filter_by_rank(simple([0.5] * 10), FilterConfig()).kept
    assert kept.filter(kept["kept"])["image_id"].to_pylist() == ["i2", "i3", "i4", "i5", "i6", "i7"]


def test_scope_per_emotion_ranks_each_by_itself() -> None:
    values = [
        {
            "image_id": f"{e}{n}",
            "emotion": e,
            "emo_score": base + n / 100,
            "sem_score": 0.1 * n,
            "reason": None,
        }
        for e, base in (("awe", 0.9), ("fear", 0.1))
        for n in range(5)
    ]
    per_emotion = filter_by_rank(to_table(values), FilterConfig(scope="per_emotion"))
    together = filter_by_rank(to_table(values), FilterConfig(scope="global", criteria=("emo",)))
    assert per_emotion.summary.kept == 6
    assert [t.group for t in per_emotion.summary.thresholds] == ["awe", "fear", "awe", "fear"]
    assert together.summary.kept == 6
    assert verdicts(per_emotion) != verdicts(together)


def test_rows_without_a_usable_score_are_named_and_not_ranked() -> None:
    table = simple([0.5, 0.4, 0.3, 0.2, 0.1])
    values = table.to_pylist()
    values[0]["emo_score"] = math.nan
    values[1]["sem_score"] = None
    values[2]["reason"] = "image_corrupt"
    result = filter_by_rank(to_table(values), FilterConfig(eta=0, delta=100))
    assert result.kept["reason"].to_pylist() == ["non_finite", "not_scored", "not_scored", None, None]
    assert result.kept["emo_rank"].to_pylist() == [None, None, None, 0, 1]
    assert result.summary.not_scored == {"image_corrupt": 1}
    assert (result.summary.total, result.summary.ranked, result.summary.kept) == (5, 2, 2)


def test_an_unused_criterion_may_be_absent() -> None:
    values = [{**r, "sem_score": None} for r in simple([0.3, 0.2, 0.1]).to_pylist()]
    result = filter_by_rank(to_table(values), FilterConfig(eta=0, delta=100, criteria=("emo",)))
    assert result.summary.kept == 3
    assert result.kept["sem_rank"].to_pylist() == [None] * 3


def test_no_rows_and_an_empty_band() -> None:
    empty = filter_by_rank(to_table([]), FilterConfig())
    assert (len(empty.kept), empty.summary.kept, empty.summary.reasons) == (0, 0, {})
    one = filter_by_rank(simple([0.5]), FilterConfig())
    assert one.summary.thresholds[0].best_score is None
    assert one.summary.reasons == {"emo_too_low_rank": 1}


@pytest.mark.parametrize(
    ("total", "eta", "delta", "band"),
    [
        (10, 20, 80, (2, 8)),
        (9, 20, 80, (1, 7)),
        (1000, 33.3, 57.9, (333, 579)),
        (7, 0, 100, (0, 7)),
        (0, 20, 80, (0, 0)),
        (1000, 0.29, 0.57, (2, 5)),
        (10000, 0.29, 0.57, (29, 57)),
    ],
)
def test_the_band_is_exact_for_the_written_number(
    total: int, eta: float, delta: float, band: tuple[int, int]
) -> None:
    assert rank_band(total, eta=eta, delta=delta) == band


def test_bad_tables_are_refused() -> None:
    twice = pa.concat_tables([simple([0.1]), simple([0.2])])
    with pytest.raises(ValueError, match="'i0' more than once"):
        filter_by_rank(twice, FilterConfig())
    with pytest.raises(ValueError, match="'sem_score' is missing"):
        filter_by_rank(simple([0.1]).drop_columns(["sem_score"]), FilterConfig())
