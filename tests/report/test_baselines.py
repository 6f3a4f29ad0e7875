"""The table and the page of baselines: every figure, and nothing that is loaded from elsewhere."""

import re

from uniemo_ray.report.baselines import BaselineResult, BaselinesSummary, baselines_table, render_baselines
from uniemo_ray.report.summary import Dataset, UnderstandingMetrics
from uniemo_ray.report.wording import NBSP
from uniemo_ray.settings_file import load_config


def result(name: str, *, accuracy: float, behind: float, images: int) -> BaselineResult:
    understanding = UnderstandingMetrics(
        accuracy=accuracy,
        per_class={"positive": 0.25, "negative": None},
        confusion=((1, 3), (0, 0)),
        two_class=accuracy,
    )
    return BaselineResult(
        name=name,
        answers=f"artefacts/answers-{name}",
        training_images=images,
        images=1000,
        understanding=understanding,
        standard_error=0.0125,
        behind=behind,
        behind_error=0.0111,
        seconds=61.4,
        details={"l2": 2.0},
    )


def summary() -> BaselinesSummary:
    return BaselinesSummary(
        config=load_config("baselines", []),
        dataset=Dataset(name="<EmoSketch>", sizes={"train": 1400, "test": 1000}),
        classes="sentiment",
        baselines=(
            result("zero_shot", accuracy=0.126, behind=0.5213, images=0),
            result("linear_probe", accuracy=0.6473, behind=0.0, images=1400),
        ),
        environment={"cpus": 2},
    )


def test_the_table_has_a_row_for_each_baseline():
    cells = [list(column.cells) for column in baselines_table(summary()).columns]
    assert [str(cell) for cell in cells[0]] == ["CLIP, zero-shot", "CLIP, linear probe"]
    assert str(cells[1][0]) == f"12.6{NBSP}% ± 1.2{NBSP}%"
    assert [str(cell) for cell in cells[2]] == [f"52.1{NBSP}% ± 1.1{NBSP}%", ""]
    assert [str(cell) for cell in cells[4]] == ["0", "1,400"]


def test_the_page_shows_all_figures_and_loads_nothing():
    page = render_baselines(summary())
    for figure in ("12.6", "64.7", "52.1", "1,400", "25.0"):
        assert figure in page
    assert "&lt;EmoSketch&gt;" in page
    assert "fine_tuning" in page  # among the settings
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_what_is_written_is_read_back():
    text = summary().model_dump_json()
    assert BaselinesSummary.model_validate_json(text) == summary()
