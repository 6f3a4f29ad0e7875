"""What `jobs/generation_baselines.py` found, as JSON and as a table in the terminal."""

from pydantic import Field, FiniteFloat, JsonValue
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from uniemo_ray.config import Config
from uniemo_ray.report.summary import METRIC_NAMES, Dataset, GenerationMetrics, Record, StepTime
from uniemo_ray.report.table import ARROWS
from uniemo_ray.report.wording import GENERATION_METRICS, duration, metric_text

TITLES = {
    "plain_prompt": "Plain prompt",
    "plain_prompt_sdxl": "Plain prompt, SDXL",
    "soft_prompt": "Soft prompt",
    "textual_inversion": "Textual Inversion",
    "emogen": "EmoGen's mapping",
    "dreambooth": "DreamBooth",
}
"""Names of the baselines for readers."""
REAL = "Real test images"


class BaselineResult(Record):
    """One baseline's images and what they cost."""

    name: str
    """As in `generation_baselines.run`."""
    generation: GenerationMetrics
    training_seconds: FiniteFloat = 0.0
    """Time in training steps; 0 where nothing trains."""
    training_images: int = 0
    """Images seen in training, over all epochs."""


class OwnRound(Record):
    """Images of UniEmo that the same run folder holds, measured with the same scorers and settings."""

    round: int
    generation: GenerationMetrics


class GenerationBaselinesSummary(Record):
    """All baselines of a run, measured alike."""

    metric_names: int = METRIC_NAMES
    """Release of the metrics' names."""
    config: Config
    dataset: Dataset
    baselines: tuple[BaselineResult, ...]
    rounds: tuple[OwnRound, ...] = ()
    """UniEmo's own images, where a feedback loop has run in the same folder."""
    real: GenerationMetrics
    """The same metrics of real test images."""
    steps: tuple[StepTime, ...] = ()
    environment: dict[str, JsonValue] = Field(default_factory=dict)
    """Machine, library versions and the like."""


def generation_baselines_table(summary: GenerationBaselinesSummary) -> RenderableType:
    """One column for each baseline, UniEmo's rounds and real images; print it with a rich console."""
    sets = [
        *((TITLES[item.name], item.generation) for item in summary.baselines),
        *((f"UniEmo, round {item.round}", item.generation) for item in summary.rounds),
        (REAL, summary.real),
    ]
    table = Table(title=Text(f"Baselines of generation on {summary.dataset.name}"), title_justify="left")
    table.add_column("Metric", no_wrap=True)
    for title, _ in sets:
        table.add_column(Text(title), justify="right")
    for metric in GENERATION_METRICS:
        values = [(getattr(item, metric.key), item.standard_errors.get(metric.key)) for _, item in sets]
        if any(value is not None for value, _ in values):
            cells = [metric_text(metric, value, error) for value, error in values]
            table.add_row(Text(f"{metric.label} {ARROWS[metric.direction]}"), *map(Text, cells))
    images = ", ".join(f"{title} {item.images:,}" for title, item in sets)
    trained = [
        f"{TITLES[item.name]} {duration(item.training_seconds)}, {item.training_images:,} images"
        for item in summary.baselines
        if item.training_images
    ]
    lines = [f"Images: {images}", *([f"Training: {'; '.join(trained)}"] if trained else [])]
    return Group(table, *map(Text, lines))
