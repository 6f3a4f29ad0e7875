"""The final table in the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from uniemo_ray.report.comparison import Comparison, compare
from uniemo_ray.report.sections import headlines
from uniemo_ray.report.summary import Summary

ARROWS = {"up": "↑", "down": "↓"}


def final_table(summary: Summary) -> RenderableType:
    """Rounds against references and ceiling, then the headline counts; print it with a rich console."""
    comparison = compare(summary)
    table = Table(title=Text(f"UniEmo feedback loop on {summary.dataset.name}"), title_justify="left")
    table.add_column("Metric", no_wrap=True)
    for column in comparison.columns:
        table.add_column(Text(column), justify="right")
    for index, rows in enumerate((comparison.understanding, comparison.generation)):
        for row in rows:
            cells = [Text(cell) for cell in row.cells]
            cells[comparison.newest].stylize("bold")
            table.add_row(Text(f"{row.metric.label} {ARROWS[row.metric.direction]}"), *cells)
        if index == 0 and comparison.generation:
            table.add_section()
    lines = [
        Text(f"{item.label}: {item.value}, {item.note}") for item in headlines(summary) if item.share is None
    ]
    return Group(table, *lines, *_notes(summary, comparison))


def _notes(summary: Summary, comparison: Comparison) -> list[Text]:
    texts = [comparison.why_not_defined] if comparison.not_defined else []
    if summary.config.data.kind == "sketch":
        texts.append("Labels are a rule drawn from EmoSet's statistics, not human ratings.")
    return [Text(text, style="dim") for text in texts]
