"""Commands and settings that the pages show, as they are found in Markdown."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")))
PROGRAMS = ("uniemo", "make", "ray", "serve", "python", "python3")
_BLOCK = re.compile(r"^[ ]*```(\w*)[^\n]*\n(.*?)^[ ]*```", re.S | re.M)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_NOT_SHELL = ("python", "yaml", "text", "nginx", "json")


class Shown(NamedTuple):
    """One command as a page shows it."""

    page: str
    words: tuple[str, ...]


def commands(page: str) -> list[Shown]:
    """Every command of a page that starts with one of our programs."""
    text = (ROOT / page).read_text()
    found = []
    for language, block in _BLOCK.findall(text):
        if language not in _NOT_SHELL:
            for line in re.sub(r"\\\n", " ", block).splitlines():
                found += in_line(line)
    for span in _INLINE.findall(_BLOCK.sub("", text)):
        found += in_line(" ".join(span.split()))
    return [Shown(page, words) for words in found]


def settings(page: str) -> set[str]:
    """Every `section.name` that a page writes as code by itself, and every key behind a `--set` by itself."""
    text = _BLOCK.sub("", (ROOT / page).read_text())
    spans = [" ".join(span.split()) for span in _INLINE.findall(text)]
    named = {
        span.partition("=")[0].partition(":")[0] for span in spans if re.match(r"[a-z0-9]+\.[a-z_.]+", span)
    }
    behind = {
        key for span in spans if span.startswith("--set") for key in re.findall(r"--set '?([\w.]+)=", span)
    }
    return named | behind


def in_line(line: str) -> list[tuple[str, ...]]:
    """Commands of a shell line: its parts, and those inside `$(...)`."""
    inner = re.findall(r"\$\(([^()]*)\)", line)
    line = re.sub(r"\$\([^()]*\)", "SHELL", line)
    parts = [part for text in (line, *inner) for part in re.split(r"&&|\|(?!\|)|;", text)]
    found = []
    for part in parts:
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # half a quoted string: no command of ours has one
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0].removeprefix(".venv/bin/") in PROGRAMS:
            found.append((words[0].removeprefix(".venv/bin/"), *words[1:]))
    return found
