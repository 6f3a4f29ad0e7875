"""The last step of `jobs/generation_baselines.py`: its summary."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from uniemo_ray.config import Config
from uniemo_ray.loop.steps.finish import dataset_of, environment, steps_of
from uniemo_ray.loop.steps.generation_baseline_training import step_of
from uniemo_ray.report.generation_baselines import GenerationBaselinesSummary
from uniemo_ray.report.summary import to_json
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import StepResult

BASELINES = "generation_baselines.json"
REAL = "reference-real"
Records = Mapping[str, StepRecord]


def finish_generation_baselines(
    run: RunFolder, config: Config, results: Sequence[StepResult]
) -> GenerationBaselinesSummary:
    """Write `generation_baselines.json` from the steps' records."""
    records = {result.record.name: result.record for result in results}
    found = []
    for name in config.generation_baselines.run:
        metrics = records[step_of("evaluate", name)].metrics
        found.append({"name": name, "generation": metrics, **_cost(records.get(step_of("train", name)))})
    summary = GenerationBaselinesSummary.model_validate(
        {
            "config": config.model_dump(mode="json"),
            "dataset": dataset_of(config, records),
            "baselines": found,
            "rounds": list(own_rounds(run, records)),
            "real": records[REAL].metrics,
            "steps": steps_of(results),
            "environment": environment(),
        }
    )
    run.lease.check()
    run.store.write_bytes(BASELINES, to_json(summary).encode())
    return summary


def _cost(trained: StepRecord | None) -> dict[str, Any]:
    if trained is None:
        return {}
    seconds, images = trained.metrics["training_seconds"], trained.outputs["images"]
    return {"training_seconds": seconds, "training_images": images}


def own_rounds(run: RunFolder, records: Records) -> Iterator[dict[str, Any]]:
    """UniEmo's images in the same run folder, if the same scorers, data and settings have measured them."""
    for round_ in count(1):
        measured, scored = (run.record(f"{verb}-{round_}") for verb in ("evaluate", "score"))
        if measured is None or scored is None:
            return
        alike = (
            measured.inputs.get("features") == records["features"].fingerprint,
            scored.inputs.get("scorers") == records["scorers"].fingerprint,
            measured.settings.items() >= records[REAL].settings.items(),
        )
        if all(alike):
            yield {"round": round_, "generation": measured.metrics["generation"]}
