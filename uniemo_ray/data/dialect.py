"""Label files as spreadsheets export them: which character separates the fields, and what a field says."""

import csv
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_SEPARATORS = ("\t", ";", ",")
_EXCEL_HEADING = re.compile(r"sep=.", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"(\d+)[.,]0+")


class Row(NamedTuple):
    """One line that is not empty."""

    number: int
    """From 1."""
    fields: list[str]


def plain_field(text: str) -> str:
    """A field without quotes and white space; `5.0` is 5."""
    bare = text.strip().strip("\"'").strip()
    number = _WHOLE_NUMBER.fullmatch(bare)
    return number[1] if number else bare


def read_rows(
    lines: Sequence[str], *, is_good: Callable[[list[str]], bool], by_space: bool = False
) -> list[Row]:
    """Lines split at the character that makes most of them good: tab, semicolon or comma.

    Args:
        lines: of a file, all of them, so that numbers fit.
        is_good: whether a line is split as it should be.
        by_space: whether the last white space of a line may separate too; then it is tried first.
    """
    kept = [(n, line) for n, line in enumerate(lines, 1) if line and not _EXCEL_HEADING.fullmatch(line)]
    found: list[list[Row]] = [_at_last_space(kept)] if by_space else []
    found += [_at(kept, separator) for separator in _SEPARATORS]
    return max(found, key=lambda rows: sum(is_good(row.fields) for row in rows))


def _at(lines: Sequence[tuple[int, str]], separator: str) -> list[Row]:
    rows = []
    for number, line in lines:
        try:
            (fields,) = csv.reader([line.rstrip(separator)], delimiter=separator)
        except (csv.Error, ValueError):
            fields = line.split(separator)
        rows.append(Row(number, [plain_field(field) for field in fields]))
    return rows


def _at_last_space(lines: Sequence[tuple[int, str]]) -> list[Row]:
    return [Row(n, [plain_field(word.rstrip(",;")) for word in line.rsplit(maxsplit=1)]) for n, line in lines]
