"""The one comparison that the page, the terminal and the model card all show: rounds against references."""

from collections.abc import Sequence
from dataclasses import dataclass

from uniemo_ray.data.readers import label_space
from uniemo_ray.report.summary import Ceiling, GenerationMetrics, Summary, UnderstandingMetrics
from uniemo_ray.report.wording import (
    BY_VALENCE,
    GENERATION_METRICS,
    MISSING,
    UNDERSTANDING_METRICS,
    Metric,
    metric_text,
)

CEILING, REAL, PLAIN = "Ceiling", "Real test images", "Plain prompt"


@dataclass(frozen=True)
class ComparisonRow:
    """One metric across all columns, as text."""

    metric: Metric
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Metric table: `cells` of a row follow `columns`."""

    columns: tuple[str, ...]
    newest: int
    """Column of the last round."""
    images: tuple[str, ...]
    """How many images each column's generation metrics are about."""
    understanding: tuple[ComparisonRow, ...]
    generation: tuple[ComparisonRow, ...]
    not_defined: tuple[str, ...] = ()
    """Metrics of positive against negative, where the run's labels cannot be told apart like this."""

    @property
    def why_not_defined(self) -> str:
        """One line that names them; empty where all are defined."""
        names = ", ".join(self.not_defined)
        return f"{names}: not defined, because the labels have no valences" if names else ""


def compare(summary: Summary) -> Comparison:
    """Rounds between what they must beat (left) and what they aim at (right).

    Metrics and columns that nobody measured are left out.
    """
    plain, real = summary.references.plain_prompt, summary.references.real
    sets: list[tuple[str, UnderstandingMetrics | None, GenerationMetrics | None]] = []
    sets += [(PLAIN, None, plain)] if plain else []
    sets += [(f"Round {item.round}", item.understanding, item.generation) for item in summary.rounds]
    newest = len(sets) - 1
    sets += [(REAL, None, real)] if real else []
    generated = [item for _, _, item in sets]
    understood = [item for _, item, _ in sets]
    ceiling = summary.dataset.ceiling
    has_valence = label_space(summary.config.data).has_valence
    return Comparison(
        columns=tuple(name for name, _, _ in sets) + ((CEILING,) if ceiling else ()),
        newest=newest,
        images=_padded([MISSING if item is None else f"{item.images:,}" for item in generated], ceiling),
        understanding=_rows(UNDERSTANDING_METRICS, understood, ceiling),
        generation=_rows(GENERATION_METRICS, generated, ceiling),
        not_defined=() if has_valence else _lacking_valence([*understood, *generated]),
    )


def _lacking_valence(
    sets: Sequence[UnderstandingMetrics | GenerationMetrics | None],
) -> tuple[str, ...]:
    """Names of the metrics by valence of all that was measured in another way."""
    measured = {
        key for key, whole in BY_VALENCE.items() if any(getattr(s, whole, None) is not None for s in sets)
    }
    return tuple(m.label for m in (*UNDERSTANDING_METRICS, *GENERATION_METRICS) if m.key in measured)


def _rows(
    metrics: Sequence[Metric],
    sets: Sequence[UnderstandingMetrics | GenerationMetrics | None],
    ceiling: Ceiling | None,
) -> tuple[ComparisonRow, ...]:
    rows = []
    for metric in metrics:
        if any(_value(item, metric) is not None for item in sets):
            bound = metric_text(metric, ceiling.both) if ceiling and metric.key == "accuracy" else MISSING
            rows.append(
                ComparisonRow(metric, _padded([_cell(item, metric) for item in sets], ceiling, bound))
            )
    return tuple(rows)


def _padded(cells: list[str], ceiling: Ceiling | None, bound: str = MISSING) -> tuple[str, ...]:
    """Cells with the ceiling's column behind them, where there is one."""
    return (*cells, bound) if ceiling else tuple(cells)


def _cell(item: UnderstandingMetrics | GenerationMetrics | None, metric: Metric) -> str:
    error = item.standard_errors.get(metric.key) if isinstance(item, GenerationMetrics) else None
    return metric_text(metric, _value(item, metric), error)


def _value(part: UnderstandingMetrics | GenerationMetrics | None, metric: Metric) -> float | None:
    value: float | None = getattr(part, metric.key) if part is not None else None
    return value
