"""The last steps: the summary, the report and the exported model."""

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import Config
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER
from uniemo_ray.feedback.rank_filter import KEPT_FOLDER
from uniemo_ray.inference.model_copy import copy_model_folder
from uniemo_ray.inference.uniemo import UniEmo
from uniemo_ray.loop.steps.scored_images import SCORES_FOLDER
from uniemo_ray.loop.steps.scorers import coefficient_table
from uniemo_ray.report.figures import StageHistory
from uniemo_ray.report.html import write_report
from uniemo_ray.report.model_card import model_card
from uniemo_ray.report.rank_sample import COLUMNS, RankSample, sample_ranks, with_verdicts
from uniemo_ray.report.samples import ShownSample, Source, first_pictures, pick_samples
from uniemo_ray.report.summary import METRIC_NAMES, Summary, to_json
from uniemo_ray.report.understanding import UnderstandingSummary, understanding_card
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.record import StepRecord, library_versions
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import entries_of, iterate_entries
from uniemo_ray.store.steps import StepResult

logger = logging.getLogger(__name__)
SUMMARY, REPORT, MODEL = "summary.json", "report.html", "model"
UNDERSTANDING = "understanding.json"
SHOWN_SCORES = ["image_id", "emotion", "emo_score", "sem_score", "predicted"]
"""What the report shows of score rows: without features, which are hundreds of times as large."""
Records = Mapping[str, StepRecord]


def finish(run: RunFolder, config: Config, results: Sequence[StepResult]) -> Summary:
    """Write `summary.json`, `report.html` and `model/` from the steps' records and artefacts."""
    records = {result.record.name: result.record for result in results}
    summary = summarise(config, results, records)
    run.lease.check()  # a driver that slept here may have been followed by one that knows more
    export_model(run, config, records, summary)
    with TemporaryDirectory() as scratch:
        page = Path(scratch) / REPORT
        write_report(
            summary,
            gather_samples(run, config, records),
            gather_ranks(run, config, records),
            gather_history(run, config, records),
            page,
            coefficients=coefficient_table(artefacts(run, records, "coefficients")),
        )
        run.lease.check()
        run.store.put_file(page, REPORT)
    run.store.write_bytes(SUMMARY, to_json(summary).encode())
    return summary


def finish_understanding(
    run: RunFolder, config: Config, results: Sequence[StepResult]
) -> UnderstandingSummary:
    """Write `understanding.json`, and `model/` where one was trained, from the steps' records."""
    records = {result.record.name: result.record for result in results}
    predicted, trained = records["predict"].outputs, "model" in records
    heads = records["scorers"].metrics if trained else {}
    summary = UnderstandingSummary.model_validate(
        {
            "config": config.model_dump(mode="json"),
            "dataset": dataset_of(config, records),
            "model": predicted["model"],
            "is_trained_here": trained,
            "model_classes": predicted["classes"],
            "classes": records["ingest"].outputs["labels"],
            **records["evaluate"].metrics,
            "classifier_accuracy": heads.get("test_emotion_accuracy"),
            "steps": steps_of(results),
            "environment": environment(),
        }
    )
    if trained:
        model = UniEmo.from_pretrained(f"{artefacts(run, records, 'model').uri}/{MODEL}")
        model.save_pretrained(f"{run.store.uri}/{MODEL}", card=understanding_card(summary))
    run.store.write_bytes(UNDERSTANDING, to_json(summary).encode())
    return summary


def artefacts(run: RunFolder, records: Records, step: str) -> Store:
    """A step's folder."""
    return run.store.sub(records[step].artefacts)


def rounds_of(config: Config) -> range:
    """Rounds of training, counted from 1."""
    return range(1, config.feedback.rounds + 2)


def summarise(config: Config, results: Sequence[StepResult], records: Records) -> Summary:
    """The run's figures from the commit records."""
    rounds = []
    for round_ in rounds_of(config):
        measured = records[f"evaluate-{round_}"].metrics
        filtered = records.get(f"filter-{round_}")
        losses = {k: v for k, v in records[f"joint-{round_}"].metrics["last"].items() if v is not None}
        rounds.append(
            {
                "round": round_,
                "understanding": {**measured["understanding"], "losses": losses},
                "generation": measured["generation"],
                "filter": dict(filtered.metrics) if filtered else None,
            }
        )
    values: dict[str, Any] = {
        "metric_names": METRIC_NAMES,
        "config": config.model_dump(mode="json"),
        "dataset": dataset_of(config, records),
        "rounds": rounds,
        "references": {
            "real": records["reference-real"].metrics,
            "plain_prompt": records["reference-plain"].metrics,
        },
        "coefficients": records["coefficients"].metrics,
        "steps": steps_of(results),
        "environment": environment(),
    }
    return Summary.model_validate(values)


def dataset_of(config: Config, records: Records) -> dict[str, Any]:
    """The data of the run."""
    ingest = records["ingest"]
    fold = "" if config.data.fold is None else f", data.fold={config.data.fold}"
    return {
        "name": "EmoSketch" if config.data.kind == "sketch" else f"{config.data.root}{fold}",
        "sizes": ingest.outputs["sizes"],
        "ceiling": ingest.metrics["ceiling"],
        "rejected": ingest.outputs["rejected"],
    }


def steps_of(results: Sequence[StepResult]) -> list[dict[str, Any]]:
    """Names and times of all steps."""
    return [{"name": r.record.name, "seconds": r.record.seconds, "skipped": r.is_skipped} for r in results]


def environment() -> dict[str, Any]:
    """Where the driver ran."""
    versions = dict(library_versions())
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}
    return {**machine, "versions": versions}


def export_model(run: RunFolder, config: Config, records: Records, summary: Summary) -> None:
    """The last round's model folder with its card, as `model/`."""
    last = f"{records[f'model-{rounds_of(config)[-1]}'].artefacts}/{MODEL}"
    if run.store.local_path_or_none() is None:
        copy_model_folder(run.store, last, MODEL, card=model_card(summary))
        return
    model = UniEmo.from_pretrained(run.store.sub(last).uri, with_diffusion=False)  # its files are copied
    model.save_pretrained(f"{run.store.uri}/{MODEL}", card=model_card(summary))


def gather_samples(run: RunFolder, config: Config, records: Records) -> list[ShownSample]:
    """Pictures for the report: each round's, the plain prompt's and real ones."""
    samples = []
    for round_ in rounds_of(config):
        names = f"generate-{round_}", f"score-{round_}"
        verdicts = f"filter-{round_}" if f"filter-{round_}" in records else None
        samples += _samples(run, records, *names, source="generated", round_=round_, verdicts=verdicts)
    samples += _samples(run, records, "generate-plain", "score-plain", source="plain_prompt")
    real = _test_images(run, records)
    scores = _rows_of(run, records, "reference-real", f"{SCORES_FOLDER}/", SHOWN_SCORES, real["image_id"])
    return samples + pick_samples([real], source="real", scores=scores)


def _samples(
    run: RunFolder,
    records: Records,
    images: str,
    scored: str,
    *,
    source: Source,
    round_: int | None = None,
    verdicts: str | None = None,
) -> list[ShownSample]:
    """The first pictures of a generating step; only the shards that hold one of them are read whole."""
    store = artefacts(run, records, images)
    columns = iterate_columns(store, f"{IMAGES_FOLDER}/", ["image_id", "emotion", "reason"])
    first = first_pictures(columns)
    entries = entries_of(store, IMAGES_FOLDER)
    ids = pa.array(first, pa.string())
    return pick_samples(
        iterate_entries(store, [entries[number] for number in sorted(set(first.values()))]),
        source=source,
        round_=round_,
        scores=_rows_of(run, records, scored, f"{SCORES_FOLDER}/", SHOWN_SCORES, ids),
        kept=None
        if verdicts is None
        else _rows_of(run, records, verdicts, f"{KEPT_FOLDER}/", ["image_id", "kept"], ids),
    )


def _rows_of(
    run: RunFolder, records: Records, step: str, prefix: str, columns: list[str], ids: pa.Array
) -> pa.Table:
    """Columns of the rows of some images."""
    wanted = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    tables = iterate_columns(artefacts(run, records, step), prefix, columns)
    return pa.concat_tables(table.filter(pc.is_in(table["image_id"], value_set=wanted)) for table in tables)


def _test_images(run: RunFolder, records: Records) -> pa.Table:
    """The first shard of real test images."""
    store = artefacts(run, records, "ingest")
    (table,) = iterate_entries(store, entries_of(store, f"{SAMPLES_FOLDER}/test")[:1])
    return table


def gather_ranks(run: RunFolder, config: Config, records: Records) -> dict[int, RankSample]:
    """Ranks and verdicts by round, for the scatter; at 10^6 images a sample of them."""
    ranks = {}
    for round_ in rounds_of(config):
        if f"filter-{round_}" not in records:
            continue
        scores, kept = (artefacts(run, records, f"{name}-{round_}") for name in ("score", "filter"))
        rows = zip(
            iterate_columns(scores, f"{SCORES_FOLDER}/", COLUMNS[:4]),
            # row i of a shard of verdicts speaks of row i of the shard of scores
            iterate_columns(kept, f"{KEPT_FOLDER}/", [COLUMNS[0], *COLUMNS[4:]]),
            strict=True,
        )
        ranks[round_] = sample_ranks((with_verdicts(*both) for both in rows), config.filter.criteria)
    return ranks


def gather_history(run: RunFolder, config: Config, records: Records) -> list[StageHistory]:
    """Loss curves of every stage."""
    curves = []
    for round_ in rounds_of(config):
        for stage in ("understanding", "joint"):
            history = artefacts(run, records, f"{stage}-{round_}").read_json("history.json")
            curves.append(StageHistory.of_records(history, round_=round_, stage=stage))
    return curves
