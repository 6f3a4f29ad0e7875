import io
from typing import Any

from rich.console import Console

from uniemo_ray.report.summary import Summary
from uniemo_ray.report.table import final_table


def printed(summary: Summary, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(final_table(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_table_shows_rounds_references_and_ceiling(summary: Summary) -> None:
    text = printed(summary)
    (line,) = [line for line in text.splitlines() if "Emo-A (own classifier) ↑" in line]
    assert [cell.strip() for cell in line.split("│")][2:7] == [
        "31.2 % ± 1.6", "63.4 % ± 1.6", "68.1 % ± 1.6", "80.6 % ± 1.6", "–",
    ]  # fmt: skip
    assert "Kept for training: 284 of 802" in text
    assert "not human ratings" in text


def test_markup_in_names_is_text(values: dict[str, Any]) -> None:
    values["dataset"]["name"] = "[red]x[/red] [/oops]"
    assert "[red]x[/red] [/oops]" in printed(Summary.model_validate(values))


def test_photographs_carry_no_note_about_a_rule(values: dict[str, Any]) -> None:
    values["config"]["data"] |= {"kind": "emoset", "root": "photos"}
    assert "human ratings" not in printed(Summary.model_validate(values))
