"""`docs/experiments.md` and its charts are what the kept `study.json` files give, and nothing else."""

from pathlib import Path

from uniemo_ray.jobs.experiments import IMAGES, read_result
from uniemo_ray.report.study import render_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_made_from_study_files():
    results = [read_result(path) for path in sorted((DOCS / "experiments").glob("*.json"))]
    page, charts = render_page(results, images=IMAGES)
    assert (DOCS / "experiments.md").read_text() == page
    kept = {path.name: path.read_text() for path in (DOCS / IMAGES).glob("*.svg")}
    assert kept == charts
