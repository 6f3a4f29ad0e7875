"""docs/metrics.md describes every metric under its name and label, and every file that a metric needs."""

import re

from tests.docs.shown import ROOT
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE, JUDGE_LABELS
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.perceptual import ALEXNET_FILE
from uniemo_ray.metrics.resnet import IMAGENET_FILE, PLACES_FILE
from uniemo_ray.report.wording import GENERATION_METRICS, UNDERSTANDING_METRICS

PAGE = (ROOT / "docs" / "metrics.md").read_text()
PUBLISHED = {"fid", "lpips", "emo_a", "sem_c", "sem_d"}


def generated() -> dict[str, str]:
    """Rows of the table of generated images by the metric's name."""
    _, _, table = PAGE.partition("\n## Generated images\n")
    lines = table.partition("\n## ")[0].splitlines()
    return {found[1]: line for line in lines if (found := re.match(r"\| `(\w+)` ", line))}


def test_every_metric_of_a_report_has_a_row_with_its_label():
    described = {m for m in GENERATION_METRICS if not m.key.endswith(("_probability", "_two_class"))}
    rows = generated()
    assert set(rows) == {metric.key for metric in described}
    for metric in described:
        assert rows[metric.key].startswith(f"| `{metric.key}` ({metric.label}) |")
    assert {metric.key for metric in UNDERSTANDING_METRICS} <= set(re.findall(r"^\| `(\w+)`", PAGE, re.M))


def test_only_published_forms_are_compared_with_the_paper():
    rows = generated()
    assert {name for name, row in rows.items() if row.endswith(f"the paper's {label(name)} |")} == PUBLISHED
    assert not [name for name, row in rows.items() if name not in PUBLISHED and "the paper's" in row]
    for metric in GENERATION_METRICS:
        is_ours = metric.key in rows and metric.key not in PUBLISHED and metric.key != "emo_a_exact"
        assert ("not comparable with" in " ".join(metric.meaning.split())) == is_ours, metric.key


def label(name: str) -> str:
    return next(metric.label for metric in GENERATION_METRICS if metric.key == name)


def test_every_file_is_named():
    _, _, files = PAGE.partition("\n## The files\n")
    for name in (INCEPTION_FILE, ALEXNET_FILE, JUDGE_FILE, PLACES_FILE, IMAGENET_FILE):
        assert f"| `{name}` |" in files
    assert ", ".join(JUDGE_LABELS) in " ".join(PAGE.split())
