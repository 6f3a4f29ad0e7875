"""Geometry of the charts: numbers in, positions and paths out. The template draws them as inline SVG."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.config import FilterConfig
from uniemo_ray.report.rank_sample import RankSample

# Pixels of a chart at scale 1: it fits a phone without shrinking its text.
WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 36.0
SQUARE = 330.0
MAX_POINTS = 240
TOTAL = "loss"
VALIDATION = "validation loss"


@dataclass(frozen=True)
class Validation:
    """What an epoch reached on images that it was not trained on."""

    step: float
    """Last optimizer step of the epoch."""
    loss: float
    accuracy: float


@dataclass(frozen=True)
class StageHistory:
    """Training losses of one stage in one round."""

    round: int
    stage: str
    steps: Sequence[float]
    """Optimizer step of each record, rising."""
    losses: Mapping[str, Sequence[float]]
    """By name (`loss` is the total), each as long as `steps`. A non-finite value is a gap."""
    validation: Sequence["Validation"] = ()
    """One for each epoch that was validated."""

    @staticmethod
    def of_records(records: Sequence[Mapping[str, Any]], *, round_: int, stage: str) -> "StageHistory":
        """From a training log: `step` and all losses of its `kind: step` records, validation of the others.

        A loss that some records lack is a gap there.
        """
        rows = [record for record in records if record.get("kind") == "step"]
        names = sorted({key for row in rows for key in row if key == TOTAL or key.endswith(f"_{TOTAL}")})
        losses = {name: [float(row.get(name, math.nan)) for row in rows] for name in names}
        validated = [
            Validation(float(record["step"]), float(record["val_loss"]), float(record["val_accuracy"]))
            for record in records
            if record.get("kind") == "epoch" and {"val_loss", "val_accuracy"} <= record.keys()
        ]
        return StageHistory(round_, stage, [float(row["step"]) for row in rows], losses, validated)


@dataclass(frozen=True)
class Tick:
    """One mark of an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Line:
    """One curve; `slot` is its colour, the same for a name in every chart, 0 for the total."""

    name: str
    slot: int
    path: str
    first: float
    last: float


@dataclass(frozen=True)
class LineChart:
    """Loss curves of one stage."""

    title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    validation: Line | None = None
    """A dot for the total loss of each validated epoch."""
    accuracies: tuple[float, ...] = ()
    """On the validation images, by epoch."""


@dataclass(frozen=True)
class Scatter:
    """Ranks by both scores, in percent of all ranked images (0 best, left and bottom)."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    band: tuple[float, float, float, float]
    """x, y, width and height of the kept band."""
    kept_path: str
    dropped_path: str
    kept: int
    dropped: int
    unranked: int
    drawn: int
    """Dots; fewer than images where these are many."""


def ticks(low: float, high: float, *, count: int = 4) -> tuple[float, ...]:
    """Round values that cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(index * step for index in range(first, max(last, first + 1) + 1))


def line_charts(history: Sequence[StageHistory]) -> tuple[LineChart, ...]:
    """One chart per stage and round.

    Raises:
        ValueError: for a curve whose length is not that of its steps.
    """
    names = sorted({name for stage in history for name in stage.losses if name != TOTAL})
    slots = {TOTAL: 0} | {name: 1 + index for index, name in enumerate(names)}
    return tuple(_line_chart(stage, slots) for stage in history if len(stage.steps))


def _line_chart(stage: StageHistory, slots: Mapping[str, int]) -> LineChart:
    for name, values in stage.losses.items():
        if len(values) != len(stage.steps):
            raise ValueError(
                f"history of {stage.stage}, round {stage.round}: expected {len(stage.steps)} values of "
                f"{name!r} (one per step), got {len(values)}"
            )
    curves = {
        name: _thin(stage.steps, stage.losses[name]) for name in sorted(stage.losses, key=slots.__getitem__)
    }
    curves = {name: curve for name, curve in curves.items() if curve.size}
    validated = _thin([v.step for v in stage.validation], [v.loss for v in stage.validation])
    shown = [curve for curve in (*curves.values(), validated) if curve.size]
    low = min((float(curve[:, 1].min()) for curve in shown), default=0.0)
    high = max((float(curve[:, 1].max()) for curve in shown), default=1.0)
    marks_y, marks_x = ticks(min(low, 0.0), high), ticks(0, max(stage.steps))
    frame_x, frame_y = (0.0, float(max(max(stage.steps), 1e-9))), (marks_y[0], marks_y[-1])
    placed = {
        name: (
            _scale(c[:, 0], frame_x, (LEFT, WIDTH - RIGHT)),
            _scale(c[:, 1], frame_y, (HEIGHT - BOTTOM, TOP)),
        )
        for name, c in {**curves, VALIDATION: validated}.items()
    }
    lines = [
        Line(name, slots[name], _polyline(*placed[name]), float(curve[0, 1]), float(curve[-1, 1]))
        for name, curve in curves.items()
    ]
    dots = None
    if validated.size:
        first, last = float(validated[0, 1]), float(validated[-1, 1])
        dots = Line(VALIDATION, slots[TOTAL], _dots(*placed[VALIDATION]), first, last)
    return LineChart(
        title=f"Round {stage.round}, {stage.stage}",
        x_ticks=_axis([mark for mark in marks_x if mark <= frame_x[1]], frame_x, (LEFT, WIDTH - RIGHT)),
        y_ticks=_axis(marks_y, frame_y, (HEIGHT - BOTTOM, TOP)),
        lines=tuple(lines),
        validation=dots,
        accuracies=tuple(v.accuracy for v in stage.validation),
    )


def _thin(steps: Sequence[float], values: Sequence[float]) -> NDArray[np.float64]:
    """Finite points (n, 2); a long curve becomes the means of at most MAX_POINTS equal pieces."""
    points = np.column_stack([np.asarray(steps, np.float64), np.asarray(values, np.float64)])
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) <= MAX_POINTS:
        return points
    return np.stack([piece.mean(axis=0) for piece in np.array_split(points, MAX_POINTS)])


def rank_scatter(sample: RankSample, config: FilterConfig) -> Scatter:
    """Where each image of one round came in, and the band that the filter keeps.

    Args:
        sample: of the round's images.
        config: The filter's settings. A score that it does not use is ranked here, for drawing.
    """
    ranked = sample.rows.to_pylist()
    shares = np.array([_shares(ranked, name, sample, config) for name in ("emo", "sem")])  # (2, ranked)
    side = (LEFT, SQUARE - RIGHT), (SQUARE - BOTTOM, TOP)
    x, y = (_scale(share, (0, 1), ends) for share, ends in zip(shares, side, strict=True))
    kept = np.array([bool(row["kept"]) for row in ranked], dtype=bool)
    marks = (0, 20, 40, 60, 80, 100)
    return Scatter(
        x_ticks=_axis(marks, (0, 100), side[0]),
        y_ticks=_axis(marks, (0, 100), side[1]),
        band=_band(config, side),
        kept_path=_dots(x[kept], y[kept]),
        dropped_path=_dots(x[~kept], y[~kept]),
        kept=sample.kept,
        dropped=sample.dropped,
        unranked=sample.unranked,
        drawn=len(ranked),
    )


def _shares(ranked: list[dict[str, Any]], name: str, sample: RankSample, config: FilterConfig) -> list[float]:
    """Rank by one score as a share of the images that are ranked together, in (0, 1)."""
    groups = [row["emotion"] if config.scope == "per_emotion" else "" for row in ranked]
    if name in config.criteria:
        everyone = sum(sample.sizes.values())
        sizes = dict(sample.sizes) if config.scope == "per_emotion" else {"": everyone}
        ranks = [row[f"{name}_rank"] for row in ranked]
    else:
        sizes, ranks = dict(Counter(groups)), [0] * len(ranked)
        seen = Counter[str]()
        for index in sorted(range(len(ranked)), key=lambda index: -(ranked[index][f"{name}_score"] or 0.0)):
            ranks[index] = seen[groups[index]]
            seen[groups[index]] += 1
    return [(rank + 0.5) / sizes[group] for rank, group in zip(ranks, groups, strict=True)]


def _band(config: FilterConfig, side: tuple[tuple[float, float], ...]) -> tuple[float, float, float, float]:
    ends = [(config.eta, config.delta) if name in config.criteria else (0, 100) for name in ("emo", "sem")]
    left, right = _scale(np.array(ends[0]), (0, 100), side[0])
    bottom, top = _scale(np.array(ends[1]), (0, 100), side[1])
    return float(left), float(top), float(right - left), float(bottom - top)


def _scale(
    values: NDArray[np.float64], source: tuple[float, float], target: tuple[float, float]
) -> NDArray[np.float64]:
    return np.asarray(target[0] + (values - source[0]) / (source[1] - source[0]) * (target[1] - target[0]))


def _axis(
    marks: Sequence[float], source: tuple[float, float], target: tuple[float, float]
) -> tuple[Tick, ...]:
    places = _scale(np.array(marks, dtype=np.float64), source, target)
    return tuple(
        Tick(round(float(place), 1), f"{mark:,.10g}") for place, mark in zip(places, marks, strict=True)
    )


def _polyline(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Strokes of no length with round caps: one short path draws any number of dots."""
    return "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
