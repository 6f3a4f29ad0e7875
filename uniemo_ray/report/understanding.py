"""What `jobs/understanding.py` found, as JSON, as a table in the terminal and as a model card."""

# C classes

from pydantic import FiniteFloat, JsonValue
from rich.table import Table
from rich.text import Text

from uniemo_ray.config import Config
from uniemo_ray.report.summary import Dataset, Record, Share, StepTime, UnderstandingMetrics
from uniemo_ray.report.wording import NOT_DEFINED, percent

CARD = """# UniEmo, understanding alone

Trained on {name} by stage 1 of UniEmo (Zhu et al., arXiv 2507.23372): image to emotion. It has no diffusion
model and no emotion space, so it makes no images.

Classes: {classes}.

Test accuracy: {accuracy} ± {error} (one standard error, {images} images).
"""


class UnderstandingSummary(Record):
    """Understanding of one model on the test split of one data set."""

    config: Config
    dataset: Dataset
    model: str
    """Fingerprint of the model folder."""
    is_trained_here: bool
    """False for a finished model that was judged on a set it may never have seen."""
    model_classes: str
    """Name of the model's label space."""
    classes: str
    """Name of the data set's label space, in which it was judged."""
    images: int
    """Images of the test split."""
    understanding: UnderstandingMetrics
    standard_error: FiniteFloat
    """Binomial standard error of the accuracy."""
    two_class_sum: Share | None = None
    """Accuracy of the valence that holds more probability, over the images whose label has one; not defined
    where the labels have no valences."""
    classifier_accuracy: Share | None = None
    """The section-2 classifier on frozen CLIP features, trained on the same images."""
    steps: tuple[StepTime, ...] = ()
    environment: dict[str, JsonValue]
    """Machine, library versions and the like."""


def understanding_table(summary: UnderstandingSummary) -> Table:
    """Accuracies and one row for each class; print it with a rich console."""
    found = summary.understanding
    how = "trained here" if summary.is_trained_here else f"model {summary.model}, not trained here"
    table = Table(title=Text(f"Understanding on {summary.dataset.name} ({how})"), title_justify="left")
    table.add_column("Metric", no_wrap=True)
    table.add_column("Test split", justify="right")
    table.add_row("Accuracy", f"{percent(found.accuracy)} ± {percent(summary.standard_error)}")
    if found.top2 is not None and len(found.per_class) > 2:
        table.add_row("Top-2 accuracy", percent(found.top2))
        for name, share in (
            ("likeliest emotion", found.two_class),
            ("summed probabilities", summary.two_class_sum),
        ):
            table.add_row(f"2-class accuracy, {name}", NOT_DEFINED if share is None else percent(share))
    if summary.classifier_accuracy is not None:
        table.add_row("Two-layer classifier on frozen CLIP", percent(summary.classifier_accuracy))
    table.add_section()
    for name, share in found.per_class.items():
        table.add_row(Text(name), "no image" if share is None else percent(share))
    return table


def understanding_card(summary: UnderstandingSummary) -> str:
    """Markdown for the model folder."""
    return CARD.format(
        name=summary.dataset.name,
        classes=", ".join(summary.understanding.per_class),
        accuracy=percent(summary.understanding.accuracy),
        error=percent(summary.standard_error),
        images=summary.images,
    )
