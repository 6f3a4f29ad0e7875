"""The pages of a study: every figure of it, as printed, and charts that follow light and dark."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from uniemo_ray.experiments.expansion import ArmSeed
from uniemo_ray.experiments.result import (
    Measured,
    StudyResult,
    Work,
    arm_results,
    columns_of,
    judge_claims,
    table_of,
)
from uniemo_ray.experiments.study import read_study
from uniemo_ray.report.study import render_chart, render_page, render_study, verdict_table
from uniemo_ray.report.study import table_of as cells_of
from uniemo_ray.report.study_charts import arms_chart, claims_chart

SEEDS = (0, 1, 2)
IMAGES = 40
METRICS = ("fd_clip", "lpips_tiny", "emo_a_exact", "sem_c_clip", "sem_d_clip", "emo_a_clip", "judge_error")


def made_up(name: str, seeds: tuple[int, ...] = SEEDS) -> StudyResult:
    """A study's result from random numbers; each arm is better than the one before."""
    _, study = read_study(name)
    generator, measured = np.random.default_rng(0), {}
    for number, arm in enumerate(study.arms):
        for seed in seeds:
            hits = (generator.random(IMAGES) < 0.3 + 0.05 * number).astype(float)
            by_image = {f"image-{index}": float(hit) for index, hit in enumerate(hits)}
            values = {key: 0.5 + 0.02 * number + 0.001 * generator.normal() for key in METRICS}
            measured[ArmSeed(arm, seed)] = Measured(by_image, values, 1000 + number)
    found = {
        (arm, column): table_of(measured, arm, seeds, study.key_of(column, "embedded"))
        for arm in study.arms
        for column in study.columns
    }
    return StudyResult(
        study=name,
        size="embedded",
        title=study.title,
        source=study.source,
        question=study.question,
        form=study.form,
        x_label=study.x_label,
        seeds=seeds,
        columns=columns_of(study, "embedded"),
        arms=arm_results(study, measured, found, size="embedded", seeds=seeds),
        claims=judge_claims(study, found, size="embedded", with_intervals=len(seeds) > 1),
        test_images=IMAGES,
        ceiling=0.809,
        common={"data.sketch_train": 1400},
        work=Work(steps=10, asked=20, hours=1.5, finished_at="2026-01-01T00:00:00+00:00"),
        environment={"machine": "Linux x86_64, 2 CPUs"},
    )


NAMES = ("fig6", "fig7", "table5", "table6", "scaling", "judge")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_holds_every_claim_and_arm(name):
    result = made_up(name)
    page = render_study(result)
    assert len(result.claims) == len(read_study(name)[1].claims)
    for claim in result.claims:
        assert claim.verdict.capitalize() in page
        assert claim.sentence.split("(")[1] in page
    assert page.count("<svg") == len(result.columns) + len({c.claim.split(" in ")[1] for c in result.claims})
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


@pytest.mark.parametrize("name", NAMES)
def test_charts_are_sound_svg_within_their_frame(name):
    result = made_up(name)
    for column in result.columns:
        for chart in (arms_chart(result, column), claims_chart(result, column)):
            if chart is None:
                continue
            text = render_chart(chart)
            root = ElementTree.fromstring(text)
            _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
            dots = [each for each in root.iter() if each.tag.endswith("circle")]
            assert len(dots) == len(chart.marks) > 0
            for dot in dots:
                assert 0 <= float(dot.attrib["cx"]) <= width
                assert 0 <= float(dot.attrib["cy"]) <= height
            assert "prefers-color-scheme: dark" in text


def test_an_interval_is_drawn_where_its_numbers_lie():
    result = made_up("fig6")
    chart = claims_chart(result, result.columns[0])
    assert chart is not None
    first, second = chart.value_ticks[0], chart.value_ticks[-1]
    per_point = (second.position - first.position) / (float(second.label) - float(first.label))
    for mark, claim in zip(chart.marks, result.claims, strict=True):
        expected = first.position + (100 * claim.low - float(first.label)) * per_point
        assert mark.low == pytest.approx(expected, abs=0.2)
        assert mark.low <= mark.value <= mark.high
    zero = first.position - float(first.label) * per_point
    assert chart.reference == pytest.approx(zero, abs=0.2)


def test_two_lines_of_a_curve_are_named():
    chart = arms_chart(made_up("scaling"), made_up("scaling").columns[0])
    assert [line.label for line in chart.lines] == ["without", "feedback"]
    assert [line.path.count("L") for line in chart.lines] == [3, 3]
    assert arms_chart(made_up("fig7"), made_up("fig7").columns[0]).lines[0].label == ""


def test_the_paper_stands_beside_ours_where_it_prints_a_figure():
    head, rows = cells_of(made_up("table6"))
    assert head == ("", "Accuracy, %", "accuracy, paper")
    assert dict((row[0], row[2]) for row in rows)["filtered by both"] == "85.3"
    assert dict((row[0], row[2]) for row in rows)["generated images without a filter"] == ""
    assert cells_of(made_up("fig6")).head == ("", "Accuracy, %")
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d", rows[0][1])


def test_the_page_of_several_studies():
    results = [made_up(name) for name in ("fig6", "table6")]
    page, charts = render_page(results, images="images")
    assert sorted(charts) == ["fig6-arms.svg", "fig6-claims.svg", "table6-arms.svg", "table6-claims.svg"]
    assert all(f"images/{name}" in page for name in charts)
    assert len(verdict_table(results).rows) == 3 + 5
    assert all(claim.sentence in page for result in results for claim in result.claims)
    assert "did not see equally many images" in page


def test_one_seed_has_means_and_no_interval():
    result = made_up("fig6", seeds=(0,))
    assert {claim.verdict for claim in result.claims} == {"no interval"}
    assert {claim.low for claim in result.claims} == {None}
    page = render_study(result)
    assert "±" not in page.split("<table>")[1].split("</table>")[0].split("</caption>")[1]
    assert "no interval with one seed" in page
    assert 'class="interval"' not in page
    assert "One seed, so without intervals" in render_page([result], images="images")[0]


def test_a_page_without_a_study_says_so():
    page, charts = render_page([], images="images")
    assert "No study has been run yet." in page
    assert charts == {}


def test_a_result_survives_its_file():
    result = made_up("table5")
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


def test_arms_that_were_tested_on_other_images_are_refused():
    measured = {
        ArmSeed("a", 0): Measured({"x": 1.0, "y": 0.0}, {}, 1),
        ArmSeed("b", 0): Measured({"x": 1.0, "z": 0.0}, {}, 1),
    }
    with pytest.raises(ValueError, match="arm 'b' was tested on other images"):
        table_of(measured, "b", (0,), "accuracy")
    with pytest.raises(ValueError, match="arm 'b' gave no sem_c with seed 0"):
        table_of(measured, "b", (0,), "sem_c")
