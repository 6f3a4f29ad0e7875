"""CONTRIBUTING.md names files that exist and words that are in use."""

import re
from functools import cache

import pytest

from tests.docs.shown import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
_PATH = re.compile(r"`([\w.-]+(?:/[\w.{},*-]*)+|[\w-]+\.(?:py|md|txt|toml|yaml))`")


def paths(text: str) -> list[str]:
    """Paths that are written as code; one without a folder lies in the root or in the package."""
    return [match for match in _PATH.findall(text) if not match.startswith(("s3:", "http"))]


def terms() -> list[str]:
    """First column of the glossary."""
    _, _, glossary = PAGE.partition("\n## Glossary\n")
    return [row.strip() for row in re.findall(r"^\| ([^|]+?) \|", glossary, re.M)][2:]


@cache
def everything_else() -> str:
    """Code and pages, without CONTRIBUTING itself, in one line of small letters."""
    files = [*ROOT.glob("uniemo_ray/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    return re.sub(r"[\s_]+", " ", " ".join(file.read_text() for file in files).lower())


def test_every_path_exists():
    found = paths(PAGE)
    assert len(found) > 40
    places = (ROOT, ROOT / "uniemo_ray")
    assert [path for path in found if not any((place / path).exists() for place in places)] == []


def test_a_missing_path_is_found():
    assert paths("open `uniemo_ray/loss.py` or `Makefile`, not `s3://bucket/run`") == ["uniemo_ray/loss.py"]


def test_the_glossary_is_complete():
    assert 20 <= len(terms()) <= 30
    assert terms() == sorted(terms(), key=str.lower)


@pytest.mark.parametrize("term", terms())
def test_a_term_of_the_glossary_is_used(term):
    stem = term.lower().removesuffix("y")
    assert re.search(rf"\b{re.escape(stem)}(y|ies|s)?\b", everything_else()), term
