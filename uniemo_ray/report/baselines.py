"""What `jobs/baselines.py` found, as JSON, as a table in the terminal and as a page."""

import yaml
from pydantic import FiniteFloat, JsonValue
from rich.table import Table
from rich.text import Text

from uniemo_ray.config import Config
from uniemo_ray.config.baselines import UnderstandingBaseline
from uniemo_ray.report.html import make_environment
from uniemo_ray.report.sections import flatten
from uniemo_ray.report.summary import Dataset, Record, StepTime, UnderstandingMetrics
from uniemo_ray.report.wording import percent

LABELS: dict[UnderstandingBaseline, str] = {
    "zero_shot": "CLIP, zero-shot",
    "linear_probe": "CLIP, linear probe",
    "coop": "CoOp",
    "cocoop": "CoCoOp",
    "fine_tuning": "CLIP, fine-tuned",
    "resnet": "ResNet-101",
    "blip2": "BLIP-2, zero-shot",
    "instructblip": "InstructBLIP, zero-shot",
    "llava": "LLaVA, zero-shot",
}


class BaselineResult(Record):
    """One baseline on the test split."""

    name: UnderstandingBaseline
    answers: str
    """Folder of its answers in the run folder: shards with image_id, emotion and logits."""
    training_images: int
    """Images it was trained on, counted once; 0 for one that does not train."""
    images: int
    """Images of the test split."""
    understanding: UnderstandingMetrics
    standard_error: FiniteFloat
    """Binomial standard error of the accuracy."""
    behind: FiniteFloat
    """Accuracy of the best baseline of the table minus its own, paired by test image."""
    behind_error: FiniteFloat
    """Standard error of `behind` over test images; that of another seed is not in it."""
    seconds: FiniteFloat
    """Time of its steps, without those that baselines share."""
    details: dict[str, JsonValue]
    """What it chose or measured beside that."""


class BaselinesSummary(Record):
    """All baselines of a run on one test split."""

    config: Config
    dataset: Dataset
    classes: str
    """Name of the data set's label space."""
    baselines: tuple[BaselineResult, ...]
    steps: tuple[StepTime, ...] = ()
    environment: dict[str, JsonValue]
    """Machine, library versions and the like."""


HEAD = ("Baseline", "Accuracy", "Behind the best", "2-class", "Training images", "Time, s")


def baselines_table(summary: BaselinesSummary) -> Table:
    """One row for each baseline; print it with a rich console."""
    count = summary.baselines[0].images
    table = Table(
        title=Text(f"Baselines on {summary.dataset.name} ({count:,} test images)"), title_justify="left"
    )
    table.add_column(HEAD[0], no_wrap=True)
    for head in HEAD[1:]:
        table.add_column(head, justify="right")
    for row in table_rows(summary):
        table.add_row(*map(Text, row))
    return table


def table_rows(summary: BaselinesSummary) -> list[tuple[str, ...]]:
    """Cells of `HEAD` for each baseline."""
    return [
        (
            LABELS[one.name],
            f"{percent(one.understanding.accuracy)} ± {percent(one.standard_error)}",
            "" if one.behind == 0 else f"{percent(one.behind)} ± {percent(one.behind_error)}",
            percent(one.understanding.two_class),
            f"{one.training_images:,}",
            f"{one.seconds:,.0f}",
        )
        for one in summary.baselines
    ]


def render_baselines(summary: BaselinesSummary) -> str:
    """The page, a function of the summary alone."""
    config = summary.config.model_dump(mode="json", exclude_defaults=True)
    return (
        make_environment()
        .get_template("baselines.html.j2")
        .render(
            summary=summary,
            head=HEAD,
            rows=table_rows(summary),
            classes=list(summary.baselines[0].understanding.per_class),
            labels=LABELS,
            environment=flatten(summary.environment),
            config_yaml=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        )
    )
