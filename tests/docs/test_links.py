"""Relative links of the Markdown files in the repository's root lead to files and headings that exist."""

import re

import pytest

from tests.docs.shown import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def links(text: str) -> list[str]:
    """Targets of Markdown links and pictures, without those to other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    return [target for target in found if "://" not in target]


def anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing(text: str) -> list[str]:
    """Links that lead nowhere."""
    wrong = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        file = ROOT / path
        if (path and not file.exists()) or (
            anchor and anchor not in anchors(file.read_text() if path else text)
        ):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    assert missing((ROOT / page).read_text()) == []


def test_a_wrong_link_is_found():
    text = "# One two\n[a](README.md) [b](docs/nothing.md) [c](#one-two) [d](#three)"
    assert missing(text) == ["docs/nothing.md", "#three"]
