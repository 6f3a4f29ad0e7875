"""Charts of a study as positions in an SVG: arms with their intervals, curves, and claimed differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uniemo_ray.experiments.claims import read_claim
from uniemo_ray.experiments.result import ArmResult, Cell, ClaimResult, Column, StudyResult
from uniemo_ray.report.figures import Tick, ticks

WIDTH, LABELS, RIGHT, TOP, ROW, FOOT = 640.0, 250.0, 70.0, 12.0, 26.0, 42.0
CURVE_LEFT, CURVE_HEIGHT = 60.0, 260.0


@dataclass(frozen=True)
class Mark:
    """One arm or difference: its value and the ends of its interval."""

    label: str
    text: str
    """The value, as printed."""
    across: float
    """Position along the rows, or along the horizontal axis of a curve."""
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A path through marks of a curve."""

    path: str
    label: str
    """At its end; empty for the only one."""
    end: float


@dataclass(frozen=True)
class Chart:
    """A chart; positions are those of the SVG."""

    kind: Literal["bars", "points", "curve"]
    title: str
    height: float
    value_ticks: tuple[Tick, ...]
    across_ticks: tuple[Tick, ...]
    """Of the horizontal axis of a curve; empty for rows, which have labels."""
    value_label: str
    across_label: str
    marks: tuple[Mark, ...]
    lines: tuple[Line, ...]
    """What joins the marks of a curve."""
    start: float
    """Where bars start."""
    reference: float | None
    """Position of a reference line: 0 of differences, the ceiling of accuracy."""
    reference_label: str


def arms_chart(result: StudyResult, column: Column) -> Chart:
    """Every arm in one metric, in the study's form."""
    arms = result.arms
    ceiling = result.ceiling if column.name == "accuracy" else None
    if result.form == "curve" and all(arm.x is not None for arm in arms):
        return _curve(result, column, arms, ceiling)
    values = [(arm.label, *_scaled(arm.cells[column.name], column)) for arm in arms]
    kind: Literal["bars", "points"] = "bars" if result.form == "bars" else "points"
    return _rows(
        kind,
        values,
        title=f"{column.label} of each arm",
        value_label=_axis_label(column),
        reference=None if ceiling is None else ceiling * column.factor,
        reference_label="ceiling",
        digits=digits(column),
    )


def claims_chart(result: StudyResult, column: Column) -> Chart | None:
    """Claimed differences in one metric with their intervals; None if nothing was claimed of it."""
    claims = [each for each in result.claims if read_claim(each.claim).metric == column.name]
    if not claims:
        return None
    values = [(_difference(result, claim), *_scaled(claim, column)) for claim in claims]
    return _rows(
        "points",
        values,
        title=f"Differences in {column.label}",
        value_label=f"difference in {_axis_label(column, is_difference=True)}",
        reference=0.0,
        reference_label="",
        digits=digits(column),
    )


def digits(column: Column) -> int:
    """Decimals of a value in print."""
    return 1 if column.is_share else 3


def _scaled(found: Cell | ClaimResult, column: Column) -> tuple[float, float | None, float | None]:
    """Mean and ends of the interval, as they are printed."""
    factor = column.factor
    if found.low is None or found.high is None:
        return found.mean * factor, None, None
    return found.mean * factor, found.low * factor, found.high * factor


def _difference(result: StudyResult, claim: ClaimResult) -> str:
    found, labels = read_claim(claim.claim), {arm.name: arm.label for arm in result.arms}
    return f"{labels[found.left]} − {labels[found.right]}"


def _axis_label(column: Column, *, is_difference: bool = False) -> str:
    unit = ("points" if is_difference else "%") if column.is_share else ""
    return f"{column.label}, {unit}" if unit else column.label


def _rows(
    kind: Literal["bars", "points"],
    values: Sequence[tuple[str, float, float | None, float | None]],
    *,
    title: str,
    value_label: str,
    reference: float | None,
    reference_label: str,
    digits: int,
) -> Chart:
    everything = _spread([value[1:] for value in values], reference)
    found = ticks(min(everything), max(everything))
    frame, ends = (found[0], found[-1]), (LABELS, WIDTH - RIGHT)

    def at(value: float) -> float:
        return round(ends[0] + (value - frame[0]) / (frame[1] - frame[0]) * (ends[1] - ends[0]), 1)

    marks = tuple(
        Mark(
            label,
            f"{mean:+z.{digits}f}" if title.startswith("Differences") else f"{mean:.{digits}f}",
            TOP + ROW * (index + 0.5),
            at(mean),
            None if low is None else at(low),
            None if high is None else at(high),
        )
        for index, (label, mean, low, high) in enumerate(values)
    )
    return Chart(
        kind,
        title,
        TOP + ROW * len(values) + FOOT,
        tuple(Tick(at(mark), f"{mark:,.10g}") for mark in found),
        (),
        value_label,
        "",
        marks,
        (),
        ends[0],
        None if reference is None else at(reference),
        reference_label,
    )


def _curve(result: StudyResult, column: Column, arms: Sequence[ArmResult], ceiling: float | None) -> Chart:
    top = None if ceiling is None else ceiling * column.factor
    bounds = [_scaled(arm.cells[column.name], column) for arm in arms]
    everything = _spread(bounds, top)
    rows, places = ticks(min(everything), max(everything)), sorted({arm.x or 0.0 for arm in arms})
    bottom, right = CURVE_HEIGHT - FOOT, WIDTH - RIGHT

    def up(value: float) -> float:
        return round(bottom - (value - rows[0]) / (rows[-1] - rows[0]) * (bottom - TOP), 1)

    def along(x: float) -> float:  # lengths and numbers of images double, so places are evenly spaced
        return round(
            CURVE_LEFT + 30 + (right - CURVE_LEFT - 60) * places.index(x) / max(1, len(places) - 1), 1
        )

    marks = tuple(
        Mark(
            arm.label,
            f"{mean:.{digits(column)}f}",
            along(arm.x or 0.0),
            up(mean),
            None if low is None else up(low),
            None if high is None else up(high),
        )
        for arm, (mean, low, high) in zip(arms, bounds, strict=True)
    )
    groups: dict[str, list[Mark]] = {}  # "400" and "400, feedback" are points of two lines
    for mark in marks:
        groups.setdefault(mark.label.partition(", ")[2] or "without", []).append(mark)
    lines = tuple(
        Line(
            "M" + "L".join(f"{mark.across} {mark.value}" for mark in group),
            label if len(groups) > 1 else "",
            group[-1].value,
        )
        for label, group in groups.items()
    )
    return Chart(
        "curve",
        f"{column.label} by {result.x_label}",
        CURVE_HEIGHT,
        tuple(Tick(up(mark), f"{mark:,.10g}") for mark in rows),
        tuple(Tick(along(x), f"{x:,.10g}") for x in places),
        _axis_label(column),
        result.x_label,
        marks,
        lines,
        bottom,
        None if top is None else up(top),
        "ceiling",
    )


def _spread(values: Sequence[tuple[float, float | None, float | None]], *more: float | None) -> list[float]:
    return [each for value in (*values, more) for each in value if each is not None]
