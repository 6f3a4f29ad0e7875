"""The site builds without a warning, loads nothing from elsewhere and has no empty page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.shown import ROOT

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs", reason="the site is built with `pip install -e .[docs]`")
pytest.importorskip("mkdocstrings", reason="the site is built with `pip install -e .[docs]`")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


def words(page: Path) -> int:
    _, _, article = page.read_text().partition("<article")
    text = re.sub(r"<(style|script|svg).*?</\1>|<[^>]+>", " ", article.partition("</article>")[0], flags=re.S)
    return len(text.split())


def test_no_page_is_empty(site):
    pages = {page.relative_to(site).as_posix(): words(page) for page in site.rglob("*.html")}
    del pages["404.html"]
    assert {"index.html", "reference/settings.html", "reference/api/models.html", "serving.html"} <= set(
        pages
    )
    assert {page: count for page, count in pages.items() if count < 60} == {}


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)', page.read_text())
        loaded += re.findall(
            r'<link[^>]* rel="(?:stylesheet|preconnect|icon)"[^>]* href="(https?:[^"]+)', page.read_text()
        )
        assert loaded == [], page


def test_generated_pages_show_what_the_code_says(site):
    assert (
        "rank-band-title" in (site / "concepts" / "feedback.html").read_text()
    )  # the SVG is part of the page
    assert "filter.eta" in (site / "reference" / "settings.html").read_text()
    assert "uniemo store repair" in (site / "reference" / "cli.html").read_text()
    assert "/v1/understand" in (site / "reference" / "http.html").read_text()
    assert "from_pretrained" in (site / "reference" / "python.html").read_text()
