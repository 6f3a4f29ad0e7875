"""`report.html`: one self-contained page about a run. It loads nothing and says so to the browser."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pyarrow as pa
import yaml

from uniemo_ray.report import sections, wording
from uniemo_ray.report.comparison import compare
from uniemo_ray.report.figures import StageHistory, line_charts, rank_scatter
from uniemo_ray.report.rank_sample import RankSample
from uniemo_ray.report.samples import ShownSample
from uniemo_ray.report.summary import Summary
from uniemo_ray.store.atomic import write_atomically


def render_report(
    summary: Summary,
    *,
    samples: Sequence[ShownSample] = (),
    scores: Mapping[int, RankSample] | None = None,
    history: Sequence[StageHistory] = (),
    coefficients: pa.Table | None = None,
) -> str:
    """The page as text, a function of its inputs alone (no clock, no random ids).

    Args:
        summary: The run's figures.
        samples: Pictures of the gallery, see `samples.pick_samples`.
        scores: By round: the images that its scatter shows, see `rank_sample.sample_ranks`.
        history: Training losses, in the order in which the stages ran.
        coefficients: `attribute`, `kind`, `count`, `alpha_<emotion>` (eq. 5).

    Raises:
        ValueError: for an unreadable sample, missing columns or curves of unequal length.
    """
    template = make_environment().get_template("report.html.j2")
    config = summary.config.model_dump(mode="json", exclude_defaults=True)
    return template.render(
        summary=summary,
        is_sketch=summary.config.data.kind == "sketch",
        headlines=sections.headlines(summary),
        gallery=sections.gallery(samples, list(summary.rounds[-1].understanding.per_class)),
        comparison=compare(summary),
        emotion_table=sections.emotion_table(summary),
        confusions=[(item.round, sections.confusion_rows(item)) for item in reversed(summary.rounds)],
        charts=line_charts(history),
        scatters={key: rank_scatter(shown, summary.config.filter) for key, shown in (scores or {}).items()},
        has_filter=bool(scores) or any(item.filter for item in summary.rounds),
        evidence=sections.evidence(coefficients) if coefficients is not None else (),
        rare=sections.RARE,
        slowest=max((step.seconds for step in summary.steps), default=0.0),
        environment=sections.flatten(summary.environment),
        config_yaml=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
    )


def write_report(
    summary: Summary,
    samples: Sequence[ShownSample],
    scores: Mapping[int, RankSample],
    history: Sequence[StageHistory],
    out: Path,
    *,
    coefficients: pa.Table | None = None,
) -> None:
    """Render the page (arguments as in `render_report`) and write it atomically to `out`."""
    page = render_report(summary, samples=samples, scores=scores, history=history, coefficients=coefficients)
    with write_atomically(out) as file:
        file.write(page.encode())


def make_environment() -> jinja2.Environment:
    """Templates of HTML pages, with the formats of `wording` as filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("uniemo_ray.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        wording.duration,
        wording.loss_term,
        wording.number,
        wording.percent,
        wording.reason,
        wording.words,
    )
    environment.filters.update({format_.__name__: format_ for format_ in formats})
    return environment
