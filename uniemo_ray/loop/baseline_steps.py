"""The steps of `jobs/baselines.py`: of every baseline what it fits, and its answers on the test split."""

from collections.abc import Callable, Mapping
from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.config.baselines import (
    LANGUAGE_BASELINES,
    TRAINED_BASELINES,
    LanguageBaseline,
    TrainedBaseline,
    UnderstandingBaseline,
)
from uniemo_ray.feedback.real_subset import facts_of, subset_of
from uniemo_ray.loop.declare import Row
from uniemo_ray.loop.step_tables import FEATURES, FROZEN_CLIP, LABELS, ingest_steps
from uniemo_ray.loop.steps import understanding_baselines as steps

ON_FEATURES: tuple[UnderstandingBaseline, ...] = ("zero_shot", "linear_probe")
"""Baselines that read frozen CLIP features and no images."""


def understanding_baseline_steps(config: Config) -> list[Row]:
    """The data, and the rows of every baseline of `baselines.run`."""
    asked = config.baselines.run
    shared = [FEATURES] if any(name in ON_FEATURES for name in asked) else []
    return [*ingest_steps(config), *shared, *(row for name in asked for row in ROWS[name](config))]


def fit_step(name: UnderstandingBaseline) -> str:
    """The step in which a baseline learns."""
    return name.replace("_", "-")


def answers_step(name: UnderstandingBaseline) -> str:
    """The step whose record holds a baseline's accuracy, and whose shards hold its answers by image."""
    return f"answers-{fit_step(name)}"


def _zero_shot(config: Config) -> list[Row]:
    return [
        Row(
            fit_step("zero_shot"),
            steps.fit_zero_shot,
            pool="data",
            reads=[*FROZEN_CLIP, *LABELS, "baselines.zero_shot"],
        ),
        _by_features("zero_shot"),
    ]


def _linear_probe(config: Config) -> list[Row]:
    subset = subset_of(config)
    return [
        Row(
            fit_step("linear_probe"),
            partial(steps.fit_linear_probe, subset=subset),
            pool="data",
            reads=[*LABELS, "baselines.linear_probe"],
            after=["features"],
            facts=facts_of(subset),
        ),
        _by_features("linear_probe"),
    ]


def _by_features(name: UnderstandingBaseline) -> Row:
    return Row(
        answers_step(name),
        partial(steps.answer_by_features, step=fit_step(name)),
        pool="data",
        place="actors",
        reads=LABELS,
        after=["features", fit_step(name)],
    )


def _trained(config: Config, *, name: TrainedBaseline) -> list[Row]:
    subset, step = subset_of(config), fit_step(name)
    source = ["evaluation.weights_dir"] if name == "resnet" else [*FROZEN_CLIP]
    reads = [*source, *LABELS, "data.max_pixels", "seed", f"baselines.{name}"]
    return [
        Row(
            step,
            partial(steps.train_network, baseline=name, subset=subset),
            pool="train",
            place="workers",
            reads=reads,
            after=["ingest"],
            facts=facts_of(subset),
        ),
        Row(
            answers_step(name),
            partial(steps.answer_by_network, baseline=name, step=step),
            pool="features",
            place="actors",
            reads=reads,
            after=["ingest", step],
        ),
    ]


def _language_model(config: Config, *, name: LanguageBaseline) -> list[Row]:
    return [
        Row(
            answers_step(name),
            partial(steps.answer_by_language_model, baseline=name),
            pool="features",
            place="actors",
            reads=[*LABELS, "data.max_pixels", f"baselines.{name}"],
            after=["ingest"],
        )
    ]


ROWS: Mapping[UnderstandingBaseline, Callable[[Config], list[Row]]] = {
    "zero_shot": _zero_shot,
    "linear_probe": _linear_probe,
    **{name: partial(_trained, name=name) for name in TRAINED_BASELINES},
    **{name: partial(_language_model, name=name) for name in LANGUAGE_BASELINES},
}
"""What each baseline declares."""
