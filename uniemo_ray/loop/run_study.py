"""A whole study: the steps of all its arms on one run folder, and what they say of its claims."""

import logging
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.experiments.expansion import ArmSeed, Expansion, Plan, declare_steps, expand
from uniemo_ray.experiments.metrics import ACCURACY
from uniemo_ray.experiments.result import (
    Measured,
    StudyResult,
    Work,
    arm_results,
    columns_of,
    judge_claims,
    table_of,
)
from uniemo_ray.experiments.study import Size, Study, arm_config, check_study
from uniemo_ray.loop.arm_steps import arm_steps, parts_of, source_of
from uniemo_ray.loop.preflight import check_inputs
from uniemo_ray.loop.run_steps import open_steps
from uniemo_ray.loop.steps.answers import read_hits
from uniemo_ray.store.record import StepRecord, library_versions
from uniemo_ray.store.run import RunFolder

logger = logging.getLogger(__name__)
CHECK_SIZE, INGEST = "check-size", "ingest"
TRAININGS = ("understanding-", "joint-")
Records = Mapping[str, StepRecord]


def configure_arms(study: Study, *, size: Size, overrides: list[str]) -> dict[str, Config]:
    """The settings of every arm, checked.

    Raises:
        ValueError: one line: an arm with a bad setting, other data, or without a metric of the study.
    """
    if size not in study.sizes:
        raise ValueError(f"the study has no size {size!r}, only {', '.join(study.sizes)}")
    configs = {arm: arm_config(study, arm, size=size, overrides=overrides) for arm in study.arms}
    check_study(study, configs, size=size)
    for number, (arm, config) in enumerate(configs.items()):
        try:
            check_inputs(config, with_data=number == 0)  # all arms have the same
        except ValueError as error:
            raise ValueError(f"arm {arm!r}: {error}") from None
    return configs


def expand_study(
    study: Study, configs: Mapping[str, Config], *, size: Size, seeds: Sequence[int]
) -> Expansion:
    """The steps of all arms and seeds, seed by seed, so that a study that is stopped has whole seeds."""
    plans = {}
    for seed in seeds:
        for arm, plain in configs.items():
            config = plain.model_copy(update={"seed": seed})
            sources = measured_in(study, arm, config, size=size).values()
            plans[ArmSeed(arm, seed)] = Plan(config, arm_steps(config), frozenset({CHECK_SIZE, *sources}))
    return expand(plans)


def measured_in(study: Study, arm: str, config: Config, *, size: Size) -> dict[str, str]:
    """Metrics of an arm, by key, and the step that each is read from."""
    keys = [study.key_of(column, size) for column in study.columns]
    return {key: source_of(key, config, until=study.until(arm, size)) for key in keys}


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    name: str
    study: Study
    size: Size
    configs: Mapping[str, Config]
    """Settings by arm; the seed is not theirs."""
    seeds: Sequence[int]
    with_intervals: bool

    @property
    def expansion(self) -> Expansion:
        """Its steps."""
        return expand_study(self.study, self.configs, size=self.size, seeds=self.seeds)


def run_study(asked: StudyRun) -> tuple[RunFolder, StudyResult]:
    """Make what is missing of all steps, then measure.

    Raises:
        ValueError: the run folder holds something else.
        RunLockedError: another driver works on it.
    """
    expansion, base = asked.expansion, next(iter(asked.configs.values()))
    made = len(expansion.steps)
    logger.info(
        "%s: %d arms, %d seeds, %d steps instead of %d",
        asked.name,
        len(asked.configs),
        len(asked.seeds),
        made,
        expansion.asked,
    )
    with open_steps(base, partial(declare_steps, expansion=expansion), ingest=ingest_of(expansion)) as (
        run,
        pipeline,
    ):
        records = {result.record.name: result.record for result in pipeline.run()}
        return run, collect_result(asked, run, expansion, records)


def ingest_of(expansion: Expansion) -> str:
    """The step that reads the data set of all arms."""
    return next(step.name for step in expansion.steps if step.row.name == INGEST)


def collect_result(asked: StudyRun, run: RunFolder, expansion: Expansion, records: Records) -> StudyResult:
    """What finished steps say.

    Args:
        asked: the study.
        run: its folder.
        expansion: its steps.
        records: of all of them, by name.
    """
    study, size, seeds = asked.study, asked.size, asked.seeds
    measured = {
        key: measure_arm(run, study, key, asked.configs[key.arm], records, names, size=size)
        for key, names in expansion.names.items()
    }
    tables = {
        (arm, column): table_of(measured, arm, seeds, study.key_of(column, size))
        for arm in study.arms
        for column in study.columns
    }
    ingested = records[ingest_of(expansion)]
    ceiling = ingested.metrics.get("ceiling")
    return StudyResult(
        study=asked.name,
        size=size,
        title=study.title,
        source=study.source,
        question=study.question,
        form=study.form,
        x_label=study.x_label,
        seeds=tuple(seeds),
        columns=columns_of(study, size),
        arms=arm_results(study, measured, tables, size=size, seeds=seeds),
        claims=judge_claims(study, tables, size=size, with_intervals=asked.with_intervals),
        test_images=ingested.outputs["sizes"]["test"],
        ceiling=ceiling["both"] if ceiling else None,
        common=common_settings(asked.configs.values()),
        work=work_of(expansion, records),
        environment={
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            **library_versions(),
        },
    )


def work_of(expansion: Expansion, records: Records) -> Work:
    """What the study cost."""
    return Work(
        steps=len(records),
        asked=expansion.asked,
        hours=round(sum(record.seconds for record in records.values()) / 3600, 3),
        finished_at=max(record.finished_at for record in records.values()),
    )


def measure_arm(
    run: RunFolder,
    study: Study,
    key: ArmSeed,
    config: Config,
    records: Records,
    names: Mapping[str, str],
    *,
    size: Size,
) -> Measured:
    """What one arm gave with one seed, from its steps' records and artefacts."""
    hits: dict[str, float] = {}
    metrics: dict[str, float | None] = {}
    for metric, source in measured_in(study, key.arm, config, size=size).items():
        record = records[names[source]]
        if metric == ACCURACY:
            hits = read_hits(run.store.sub(record.artefacts), label_space(config.data))
        else:
            parts = [record.metrics["generation"].get(part) for part in parts_of(metric)]
            metrics[metric] = None if None in parts else parts[0] - sum(parts[1:])
    trained = [name for own, name in names.items() if own.startswith(TRAININGS)]
    return Measured(hits, metrics, sum(records[name].outputs["images"] for name in trained))


def common_settings(configs: Collection[Config]) -> dict[str, object]:
    """Settings that are equal in all arms and not at their default, by dotted name."""
    flat = [dict(_flatten(config.model_dump(mode="json", exclude={"seed", "run"}))) for config in configs]
    default = dict(_flatten(Config().model_dump(mode="json")))
    return {
        name: value
        for name, value in flat[0].items()
        if all(other.get(name) == value for other in flat) and value != default.get(name)
    }


def _flatten(values: Mapping[str, object], path: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        found += _flatten(value, f"{path}{name}.") if isinstance(value, dict) else [(f"{path}{name}", value)]
    return found
