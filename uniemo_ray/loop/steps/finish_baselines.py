"""The end of `jobs/baselines.py`: `baselines.json` and `baselines.html` from the steps' records."""

# M test images

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.config import Config
from uniemo_ray.config.baselines import UnderstandingBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.loop.baseline_steps import answers_step, fit_step
from uniemo_ray.loop.steps.answers import read_hits
from uniemo_ray.loop.steps.finish import artefacts, dataset_of, environment, steps_of
from uniemo_ray.report.baselines import BaselineResult, BaselinesSummary, render_baselines
from uniemo_ray.report.summary import to_json
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import StepResult

SUMMARY, PAGE = "baselines.json", "baselines.html"
SHOWN = ("images", "rows", "accuracy", "standard_error", "understanding")
"""Measurements that have a place of their own."""


def finish_baselines(run: RunFolder, config: Config, results: Sequence[StepResult]) -> BaselinesSummary:
    """Write both files; returns what is in them."""
    records = {result.record.name: result.record for result in results}
    summary = BaselinesSummary(
        config=config,
        dataset=dataset_of(config, records),
        classes=records["ingest"].outputs["labels"],
        baselines=results_of(run, config, records),
        steps=steps_of(results),
        environment=environment(),
    )
    run.lease.check()
    run.store.write_bytes(PAGE, render_baselines(summary).encode())
    run.store.write_bytes(SUMMARY, to_json(summary).encode())
    return summary


def results_of(
    run: RunFolder, config: Config, records: Mapping[str, StepRecord]
) -> tuple[BaselineResult, ...]:
    """Every baseline of `baselines.run`, each with its distance to the best one."""
    asked = config.baselines.run
    hits = {name: hits_of(run, config, records, name) for name in asked}
    best = max(hits.values(), key=lambda found: float(found.mean()))
    return tuple(_result(name, records, best - hits[name]) for name in asked)


def hits_of(
    run: RunFolder, config: Config, records: Mapping[str, StepRecord], name: UnderstandingBaseline
) -> NDArray[np.float64]:
    """(M,) 1 where a baseline is right, in the order of the images' ids."""
    found = read_hits(artefacts(run, records, answers_step(name)), label_space(config.data))
    return np.array([found[image_id] for image_id in sorted(found)])


def _result(
    name: UnderstandingBaseline, records: Mapping[str, StepRecord], behind: NDArray[np.float64]
) -> BaselineResult:
    answers = records[answers_step(name)]
    own = [records[step] for step in (fit_step(name), answers_step(name)) if step in records]
    fitted = own[0] if len(own) > 1 else None
    details = {key: value for record in own for key, value in record.metrics.items() if key not in SHOWN}
    return BaselineResult(
        name=name,
        answers=answers.artefacts,
        training_images=fitted.outputs["images"] if fitted else 0,
        images=answers.metrics["images"],
        understanding=answers.metrics["understanding"],
        standard_error=answers.metrics["standard_error"],
        behind=float(behind.mean()),
        behind_error=float(behind.std(ddof=1) / np.sqrt(len(behind))) if len(behind) > 1 else 0.0,
        seconds=sum(record.seconds for record in own),
        details=details,
    )
