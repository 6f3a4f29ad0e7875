"""`study.html` of one study, and the page of all of them as Markdown with SVG files beside it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2

from uniemo_ray.experiments.claims import read_claim
from uniemo_ray.experiments.result import ArmResult, Column, StudyResult
from uniemo_ray.report.study_charts import Chart, arms_chart, claims_chart, digits

METHOD = (
    "Arms are paired by seed and, in accuracy, by test image. An interval is that of a bootstrap over seeds "
    "and test images, stretched for the small number of seeds. A claim is supported or contradicted where "
    "its interval leaves out 0. Several claims are not corrected for each other. No seed was left out and no "
    "arm chosen."
)


class Table(NamedTuple):
    """Text cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_study(result: StudyResult) -> str:
    """The page of one study, a function of its result alone."""
    return (
        _environment()
        .get_template("study.html.j2")
        .render(
            result=result,
            method=METHOD,
            table=table_of(result),
            seen=images_seen(result),
            arm_charts=[render_chart(arms_chart(result, column)) for column in result.columns],
            claim_charts=[
                render_chart(chart)
                for column in result.columns
                if (chart := claims_chart(result, column)) is not None
            ],
        )
    )


def render_chart(chart: Chart) -> str:
    """A chart as an SVG file that follows the reader's light or dark colours."""
    return _environment().get_template("study_chart.svg.j2").render(chart=chart)


def table_of(result: StudyResult) -> Table:
    """Arms as rows; for each metric ours, and the paper's where it prints a figure."""
    published = {name for arm in result.arms for name in arm.published}
    head, rows = [""], []
    for column in result.columns:
        head += [f"{column.label}{', %' if column.is_share else ''}"]
        head += [f"{column.name.replace('_', '-')}, paper"] if column.name in published else []
    for arm in result.arms:
        row = [arm.label]
        for column in result.columns:
            row.append(_cell(arm, column))
            if column.name in published:
                row.append(f"{arm.published[column.name]:g}" if column.name in arm.published else "")
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows))


def _cell(arm: ArmResult, column: Column) -> str:
    cell, factor, places = arm.cells[column.name], column.factor, digits(column)
    text = f"{factor * cell.mean:.{places}f}"
    return text if cell.low is None else f"{text} ± {factor * (cell.mean - cell.low):.{places}f}"


def images_seen(result: StudyResult) -> str:
    """One sentence: how many images the trainings of the arms saw."""
    seen = {arm.label: sum(arm.images_seen) // len(arm.images_seen) for arm in result.arms}
    low, high = min(seen.values()), max(seen.values())
    if low == high:
        return f"The trainings of every arm saw {low:,} images for each seed."
    listed = ", ".join(f"“{label}” {count:,}" for label, count in seen.items())
    return f"The trainings of the arms did not see equally many images for each seed: {listed}."


def render_page(results: Sequence[StudyResult], *, images: str) -> tuple[str, dict[str, str]]:
    """`docs/experiments.md`, and the SVG files that it shows, by name.

    Args:
        results: of the studies, in the order of the page.
        images: folder of the SVG files as the page names it.
    """
    environment = _environment(is_html=False)
    charts: dict[str, str] = {}
    for result in results:
        name, column = slug(result), result.columns[0]
        charts[f"{name}-arms.svg"] = render_chart(arms_chart(result, column))
        if (chart := claims_chart(result, column)) is not None:
            charts[f"{name}-claims.svg"] = render_chart(chart)
    page = environment.get_template("experiments.md.j2").render(
        results=results, method=METHOD, images=images, charts=charts
    )
    return page, charts


def slug(result: StudyResult) -> str:
    """Name of a study's files: with its size, unless that is the embedded one."""
    return result.study if result.size == "embedded" else f"{result.study}-{result.size}"


def verdict_table(results: Sequence[StudyResult]) -> Table:
    """One row for each claim of the paper."""
    rows = []
    for result in results:
        labels: Mapping[str, str] = {arm.name: arm.label for arm in result.arms}
        for claim in result.claims:
            said = read_claim(claim.claim)
            column = next(each for each in result.columns if each.name == said.metric)
            factor, places = column.factor, digits(column)
            interval = (
                ""
                if claim.low is None or claim.high is None
                else f"{factor * claim.low:+z.{places}f} to {factor * claim.high:+z.{places}f}"
            )
            rows.append(
                (
                    result.source,
                    f"{labels[said.left]} {said.sign} {labels[said.right]}",
                    column.label,
                    f"{factor * claim.mean:+z.{places}f}",
                    interval,
                    str(claim.seeds),
                    claim.verdict,
                )
            )
    return Table(("", "claim", "metric", "difference", "95 % interval", "seeds", "verdict"), tuple(rows))


def _environment(*, is_html: bool = True) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("uniemo_ray.report"),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "table_of": table_of,
        "images_seen": images_seen,
        "verdict_table": verdict_table,
        "slug": slug,
    }
    return environment
