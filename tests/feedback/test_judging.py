"""Verdicts on parts of the rows, and how their tallies add up."""

import numpy as np
import pytest

from tests.feedback.reference_filter import filter_by_rank, simple, to_table
from uniemo_ray.config import FilterConfig
from uniemo_ray.feedback.verdicts import Band, KeptBand, Tally, judge, read_scores, summarise


def test_tallies_of_parts_add_up() -> None:
    first = Tally(
        total=10,
        kept=3,
        reasons={"sem_too_low_rank": 4, "not_scored": 3},
        not_scored={"image_corrupt": 2},
        edges={"emo": {"fear": [0.9, 0.4], "awe": None, "joy": [0.5, 0.5]}, "sem": {"fear": None}},
    )
    second = Tally(
        total=100,
        kept=30,
        reasons={"not_scored": 50, "emo_too_low_rank": 20},
        not_scored={"blank": 1, "image_corrupt": 7},
        edges={"emo": {"fear": [0.8, 0.2], "awe": None, "sad": [0.3, 0.1]}, "sem": {"fear": [0.7, 0.6]}},
    )
    both = Tally(
        total=110,
        kept=33,
        reasons={"emo_too_low_rank": 20, "not_scored": 53, "sem_too_low_rank": 4},
        not_scored={"blank": 1, "image_corrupt": 9},
        edges={
            "emo": {"awe": None, "fear": [0.9, 0.2], "joy": [0.5, 0.5], "sad": [0.3, 0.1]},
            "sem": {"fear": [0.7, 0.6]},
        },
    )
    assert first.merge(second) == second.merge(first) == both
    assert list(first.merge(second).reasons) == sorted(both.reasons)  # summaries are compared as text, too
    assert list(first.merge(second).edges["emo"]) == ["awe", "fear", "joy", "sad"]


def test_a_group_without_ranked_rows_needs_no_band() -> None:
    values = simple([0.9, 0.8, 0.7]).to_pylist()
    values[2] |= {"emotion": "fear", "reason": "image_corrupt"}
    config = FilterConfig(eta=0, delta=100, scope="per_emotion", criteria=("emo",))
    table = to_table(values)
    rows = read_scores(table, config)
    assert rows.sizes() == {"awe": 2, "fear": 0}
    assert rows.members("awe").tolist() == [0, 1]
    bands = {"awe": Band(0, 2)}
    kept, tally = judge(table, rows, {"emo": np.array([0, 1, -1])}, bands)
    assert kept["kept"].to_pylist() == [True, True, False]
    assert kept["reason"].to_pylist() == [None, None, "not_scored"]
    assert tally.edges == {"emo": {"awe": [pytest.approx(0.9), pytest.approx(0.8)], "fear": None}}
    summary = summarise(tally, {"awe": 2}, bands)
    assert (summary.total, summary.ranked, summary.kept) == (3, 2, 2)
    assert summary.thresholds[1] == KeptBand("fear", "emo", 0, 0, 0, None, None)
    # and where such a group comes first, its neighbour's limits stay its own
    swapped = judge(table, rows, {"emo": np.array([1, 0, -1])}, {"awe": Band(1, 2)})
    assert swapped.kept["reason"].to_pylist() == [None, "emo_too_high_rank", "not_scored"]


def test_every_rejection_counts_once_by_its_first_reason() -> None:
    emo, sem = [0.9, 0.8, 0.7, 0.6], [0.6, 0.7, 0.9, 0.8]
    result = filter_by_rank(simple(emo, sem=sem), FilterConfig(eta=25, delta=75))
    reasons = ["emo_too_high_rank", None, "sem_too_high_rank", "emo_too_low_rank"]
    assert result.kept["reason"].to_pylist() == reasons
    assert result.kept["sem_rank"].to_pylist() == [3, 2, 0, 1]


def test_emotions_are_needed_where_each_is_ranked_by_itself() -> None:
    values = simple([0.5, 0.4]).to_pylist()
    values[1]["emotion"] = None
    assert filter_by_rank(to_table(values), FilterConfig(scope="global")).summary.total == 2
    with pytest.raises(ValueError, match="1 score rows have no emotion: use scope global"):
        filter_by_rank(to_table(values), FilterConfig(scope="per_emotion"))


def test_zero_and_minus_zero_are_one_score() -> None:
    kept = filter_by_rank(simple([-0.0, 0.0, -0.0]), FilterConfig(eta=0, delta=100)).kept
    assert kept["emo_rank"].to_pylist() == [0, 1, 2]
    values = read_scores(simple([-0.0]), FilterConfig()).values["emo"]
    assert not np.signbit(values).any()
