import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.config import FilterConfig
from uniemo_ray.report.figures import (
    MAX_POINTS,
    Scatter,
    StageHistory,
    Validation,
    line_charts,
    rank_scatter,
    ticks,
)
from uniemo_ray.report.rank_sample import sample_ranks


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_even_and_cover_the_range(low: float, extent: float) -> None:
    found = ticks(low, low + extent)
    assert 2 <= len(found) <= 8
    slack = 1e-6 * max(abs(low), extent)
    assert found[0] <= low + slack
    assert found[-1] >= low + extent - slack
    np.testing.assert_allclose(np.diff(found), found[1] - found[0], rtol=1e-6, atol=slack)


def test_ticks_are_round() -> None:
    assert ticks(0, 2.2) == (0, 1, 2, 3)
    assert ticks(0, 0.9) == pytest.approx((0, 0.5, 1.0))
    assert ticks(0, 400) == (0, 100, 200, 300, 400)


def test_a_curve_runs_from_its_first_to_its_last_value() -> None:
    (chart,) = line_charts([StageHistory(1, "stage 2", [0, 50, 100], {"loss": [2.0, 1.5, 1.0]})])
    (line,) = chart.lines
    assert chart.title == "Round 1, stage 2"
    assert (line.first, line.last) == (2.0, 1.0)
    (x0, y0), _, (x2, y2) = points(line.path)
    assert (x0, x2) == (40, 330)
    marks = {tick.label: tick.position for tick in chart.y_ticks}
    assert (y0, y2) == (marks["2"], marks["1"])
    assert y0 < y2  # a falling loss falls on the screen


def test_a_term_has_one_colour_everywhere_and_the_total_its_own() -> None:
    history = [
        StageHistory(0, "stage 1", [1], {"scene_loss": [1.0], "loss": [1.0]}),
        StageHistory(0, "stage 2", [1], {"diffusion_loss": [1.0], "scene_loss": [1.0], "loss": [1.0]}),
    ]
    first, second = ({line.name: line.slot for line in chart.lines} for chart in line_charts(history))
    assert first["loss"] == second["loss"] == 0
    assert first["scene_loss"] == second["scene_loss"] > 0
    assert second["diffusion_loss"] not in (0, second["scene_loss"])


def test_long_curves_are_averaged_and_gaps_left_out() -> None:
    steps = list(range(10 * MAX_POINTS))
    values = [math.nan if step == 3 else float(step) for step in steps]
    (chart,) = line_charts(
        [StageHistory(0, "stage 1", steps, {"loss": values, "gone": [math.nan] * len(steps)})]
    )
    (line,) = chart.lines
    assert len(points(line.path)) == MAX_POINTS
    assert line.last == pytest.approx(np.mean(steps[-9:]), abs=0.6)


def test_curves_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stage 1, round 0: expected 2 values of 'loss'.*got 1"):
        line_charts([StageHistory(0, "stage 1", [1, 2], {"loss": [1.0]})])


def test_a_stage_without_steps_has_no_chart() -> None:
    assert line_charts([StageHistory(0, "stage 1", [], {})]) == ()


def test_history_of_a_training_log() -> None:
    records = [
        {"kind": "step", "step": 1, "epoch": 0, "loss": 2.0, "scene_loss": 1.0, "accuracy": 0.1},
        {"kind": "epoch", "step": 1, "epoch": 0, "loss": 9.0},
        {"kind": "step", "step": 2, "epoch": 0, "loss": 1.5},
    ]
    history = StageHistory.of_records(records, round_=0, stage="stage 1")
    assert list(history.steps) == [1, 2]
    assert set(history.losses) == {"loss", "scene_loss"}
    assert history.losses["loss"] == [2.0, 1.5]
    assert math.isnan(history.losses["scene_loss"][1])
    assert line_charts([history])[0].lines[1].last == 1.0


def scatter(table: pa.Table, config: FilterConfig) -> Scatter:
    return rank_scatter(sample_ranks([table], config.criteria), config)


def dots_inside(path: str, band: tuple[float, float, float, float]) -> list[bool]:
    left, top, width, height = band
    return [left <= x <= left + width and top <= y <= top + height for x, y in points(path)]


def test_kept_images_lie_in_the_band_and_no_other(ranks: pa.Table) -> None:
    chart = scatter(ranks, FilterConfig())
    assert chart.kept == sum(ranks["kept"].to_pylist())
    assert (chart.kept + chart.dropped, chart.unranked) == (800, 2)
    assert all(dots_inside(chart.kept_path, chart.band))
    assert not any(dots_inside(chart.dropped_path, chart.band))


def scored(emotions: list[str], emo: list[float], sem: list[float]) -> pa.Table:
    count = len(emotions)
    return pa.table({
        "image_id": [str(i) for i in range(count)], "emotion": emotions,
        "emo_score": emo, "sem_score": sem,
        "emo_rank": pa.array(np.argsort(np.argsort(-np.array(emo))), pa.int64()),
        "sem_rank": pa.array([None] * count, pa.int64()), "kept": [False] * count,
    })  # fmt: skip


def test_an_unused_score_is_ranked_for_drawing_and_its_band_is_open() -> None:
    table = scored(["awe"] * 4, [0.9, 0.8, 0.7, 0.6], [0.1, 0.4, 0.2, 0.3])
    chart = scatter(table, FilterConfig(eta=25, delta=75, criteria=("emo",)))
    dots = points(chart.dropped_path)
    assert (chart.dropped, chart.unranked) == (4, 0)
    assert dots == sorted(dots)  # x: already in the order of the emotion score
    heights = [y for _, y in dots]
    assert np.argsort(heights).tolist() == [0, 2, 3, 1]  # y down: worst semantic score on top
    assert (chart.band[1], chart.band[3]) == (10, 284)
    assert chart.band[2] == pytest.approx(140)


def test_ranks_within_an_emotion_are_shares_of_that_emotion() -> None:
    table = scored(["awe", "awe", "fear"], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1])
    table = table.set_column(4, "emo_rank", pa.array([0, 1, 0])).set_column(
        5, "sem_rank", pa.array([0, 1, 0])
    )
    chart = scatter(table, FilterConfig(scope="per_emotion"))
    assert [x for x, _ in points(chart.dropped_path)] == [110, 250, 180]


def test_no_ranked_image_draws_an_empty_chart(ranks: pa.Table) -> None:
    chart = scatter(ranks.slice(800), FilterConfig())
    assert (chart.kept, chart.dropped, chart.unranked, chart.kept_path) == (0, 0, 2, "")


def test_validation_is_dots_where_epochs_end() -> None:
    records = [
        {"kind": "step", "step": 1, "loss": 2.0},
        {"kind": "step", "step": 2, "loss": 1.0},
        {"kind": "epoch", "step": 2, "loss": 1.5, "val_loss": 4.0, "val_accuracy": 0.25},
        {"kind": "step", "step": 4, "loss": 0.5},
        {"kind": "epoch", "step": 4, "loss": 0.5, "val_loss": 3.0, "val_accuracy": 0.5},
    ]
    history = StageHistory.of_records(records, round_=1, stage="understanding")
    assert history.validation == [Validation(2.0, 4.0, 0.25), Validation(4.0, 3.0, 0.5)]
    (chart,) = line_charts([history])
    assert chart.accuracies == (0.25, 0.5)
    assert chart.validation is not None
    assert (chart.validation.first, chart.validation.last) == (4.0, 3.0)
    first, last = chart.validation.path.removeprefix("M").removesuffix("h0").split("h0M")
    assert float(first.split()[0]) == pytest.approx((40 + 330) / 2, abs=0.1)  # the middle of four steps
    assert float(last.split()[0]) == pytest.approx(330, abs=0.1)
    assert float(first.split()[1]) < float(last.split()[1])  # a higher loss is higher up
    assert max(float(tick.label) for tick in chart.y_ticks) >= 4  # it lies inside the frame


def test_a_stage_without_validation_has_no_dots() -> None:
    (chart,) = line_charts([StageHistory(1, "stage 2", [0, 50], {"loss": [2.0, 1.5]})])
    assert (chart.validation, chart.accuracies) == (None, ())
