"""The ingest step of a run folder on every kind of data set, as jobs/ingest.py and the loop run it."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from tests.data import layouts
from uniemo_ray.config import Config
from uniemo_ray.data.folder import FolderError
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.emotions import LABEL_SPACES
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.step_tables import ingest_steps
from uniemo_ray.loop.steps.data import check_size
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import committed, read_shard_bytes
from uniemo_ray.store.steps import Pipeline, StepContext, StepResult
from uniemo_ray.store.verify import verify_run

ROOT = Path(__file__).parents[2]


def twitter1(root: Path) -> None:
    layouts.agreement_files(root, layouts.twitter1(root), kept=lambda n, number: 5 - n // 10 >= number)


KINDS = {
    # kind: (maker of a folder, further settings, label space, sizes)
    "fi": (lambda root: layouts.fi(root, 20), {}, "mikels", (128, 8, 24)),
    "emotionroi": (lambda root: layouts.emotionroi(root, train=17, test=5), {}, "ekman", (96, 6, 30)),
    "twitter1": (twitter1, {"agreement": 4}, "sentiment", (14, 2, 4)),
    "twitter2": (layouts.twitter2, {}, "sentiment", (14, 2, 4)),
    "folders": (
        lambda root: layouts.class_folders(root, ["POSITIVE", "negative"], 5),
        {"labels": "sentiment"},
        "sentiment",
        (6, 2, 2),
    ),
}


def config_of(tmp_path: Path, kind: str, **settings: object) -> Config:
    data = {"kind": kind, "root": str(tmp_path / "set"), "rows_per_shard": 60, **settings}
    return load_config(None, [f"run={tmp_path}/run", f"data={json.dumps(data)}"])


def ingest(config: Config) -> tuple[Store, StepResult]:
    run = RunFolder.open(config.run, config)
    pipeline = Pipeline(run)
    declare(pipeline, config, ingest_steps(config))
    (result,) = pipeline.run()
    return run.store.sub(result.record.artefacts), result


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestThroughRay:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_becomes_canonical_shards(self, tmp_path: Path, kind: str) -> None:
        make, settings, space, sizes = KINDS[kind]
        make(tmp_path / "set")
        store, result = ingest(config_of(tmp_path, kind, **settings))
        outputs = result.record.outputs
        assert outputs["sizes"] == dict(zip(("train", "val", "test"), sizes, strict=True))
        assert (outputs["labels"], outputs["rejected"], outputs["duplicates"]) == (space, {}, 0)
        labels = LABEL_SPACES[space].labels
        assert store.read_json("names.json") == {"emotion": list(labels), "scene": [], "object": []}
        shards = committed(store, "samples/")
        assert len(shards) == outputs["shards"] == sum(-(-size // 60) for size in sizes)
        for entry in shards.values():
            read_shard_bytes(store, entry)  # size and sha256 are as listed
        table = pq.read_table(Path(str(store.local_path_or_none())) / "samples", schema=SAMPLES)
        assert len(table) == sum(sizes) == sum(entry.rows for entry in shards.values())
        assert set(table["emotion"].to_pylist()) == set(labels)
        assert set(table["source"].to_pylist()) == {kind}
        _, again = ingest(config_of(tmp_path, kind, **settings))
        assert again.is_skipped

    def test_bad_files_are_counted_and_duplicates_reported(self, tmp_path: Path) -> None:
        root = layouts.fi_split(tmp_path / "set")
        (root / "train/AWE/1.JPG").write_bytes(b"no picture")
        (root / "val/AWE/0.JPG").write_bytes(b"")
        layouts.put(root / "train/neutral/9.png")
        shutil.copy(root / "train/FEAR/0.JPG", root / "test/FEAR/0.JPG")
        shutil.copy(root / "train/ANGER/0.JPG", root / "train/ANGER/1.JPG")
        store, result = ingest(config_of(tmp_path, "fi"))
        outputs = result.record.outputs
        assert outputs["rejected"] == {"image_corrupt": 2, "unknown_label": 1}
        assert outputs["sizes"] == {"train": 31, "val": 31, "test": 32}
        assert outputs["duplicates"] == 2
        assert Counter(row["reason"] for row in store.read_json("rejected.json")) == outputs["rejected"]
        found = store.read_json("duplicates.json")
        assert [[place["image_id"] for place in item["images"]] for item in found] == [
            ["train/anger/0.JPG", "train/anger/1.JPG"],
            ["train/fear/0.JPG", "test/fear/0.JPG"],
        ]

    def test_an_interrupted_step_is_resumed_and_lists_what_is_planned(self, tmp_path: Path) -> None:
        layouts.fi(tmp_path / "set", 20)
        config = config_of(tmp_path, "fi")
        store, first = ingest(config)
        before = committed(store, "samples/")
        forget(config, first)
        for key in ("samples/val/part-00000.parquet", "manifest/samples/val/part-00000.json"):
            store.delete(key)
        one = next(iter(before.values()))
        values = {name: getattr(one, name) for name in one.__dataclass_fields__}
        stale = "manifest/samples/train/part-00099.json"
        store.write_json(stale, {**values, "name": "samples/train/part-00099"})
        again, result = ingest(config)
        assert not result.is_skipped
        after = committed(again, "samples/")
        assert {name: entry.sha256 for name, entry in after.items()} == {
            name: entry.sha256 for name, entry in before.items()
        }
        assert [entry.name for name, entry in after.items() if entry != before[name]] == [
            "samples/val/part-00000"
        ]
        assert verify_run(RunFolder.open(config.run, config).store).findings == ()

    def test_a_step_that_an_earlier_release_has_begun_is_resumed(self, tmp_path: Path) -> None:
        """It wrote the same shards without a plan, and listed them at its end."""
        layouts.fi(tmp_path / "set", 20)
        config = config_of(tmp_path, "fi")
        store, first = ingest(config)
        before = committed(store, "samples/")
        forget(config, first)
        for key in store.list():
            if not key.startswith("samples/"):
                store.delete(key)
        again, result = ingest(config)
        assert not result.is_skipped
        assert {name: entry.sha256 for name, entry in committed(again, "samples/").items()} == {
            name: entry.sha256 for name, entry in before.items()
        }
        assert verify_run(RunFolder.open(config.run, config).store).findings == ()


def forget(config: Config, result: StepResult) -> None:
    """As if the driver had been killed before it recorded the step."""
    RunFolder.open(config.run, config).store.delete(
        f"steps/history/ingest-{result.record.fingerprint[:12]}.json"
    )


def test_less_than_a_batch_is_refused_by_the_loop_not_by_ingest(tmp_path: Path) -> None:
    layouts.fi(tmp_path / "set", 3)
    config = config_of(tmp_path, "fi")
    run = RunFolder.open(config.run, config)

    class Ingested:
        outputs = {"sizes": {"train": 8}}  # noqa: RUF012

    context = StepContext("check-size", "f", "f", {}, run, "artefacts/f", {"ingest": Ingested()}, False)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="8 usable images, less than one batch of 128: lower batch_size"):
        check_size(context, config)


def job(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, "jobs/ingest.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_job_names_a_wrong_setting_before_ray_starts(tmp_path: Path) -> None:
    done = job("--set", "data.kind=fi")
    assert done.returncode == 1
    expected = "error: defaults: data: data.kind is 'fi' but data.root is empty: give the data set's folder"
    assert done.stderr.splitlines()[-1] == expected
    done = job("--set", "data.kind=fi", "--set", f"data.root={tmp_path}", "--set", f"run={tmp_path}/run")
    assert "found no folder" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_job_ingests_into_a_run_folder_and_continues(tmp_path: Path) -> None:
    layouts.twitter2(tmp_path / "set")
    sets = ["data.kind=twitter2", f"data.root={tmp_path}/set", f"run={tmp_path}/run"]
    arguments = [part for value in sets for part in ("--set", value)]
    for log in ("[1/1] ingest ... done", "[1/1] ingest ... skipped"):
        done = job(*arguments, RAY_ADDRESS=ray.get_runtime_context().gcs_address)
        assert done.returncode == 0, done.stderr
        assert log in done.stderr
        assert "sizes: {'train': 14, 'val': 2, 'test': 4}" in done.stdout
        shutil.rmtree(tmp_path / "set", ignore_errors=True)  # a finished run needs it no more
    samples = Path(done.stdout.splitlines()[-1].removeprefix("samples: "))
    assert pq.read_table(samples).num_rows == 20


@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("kind", ["fi", "twitter2"])
def test_a_data_set_in_a_bucket_gives_the_same_samples(tmp_path: Path, s3_uri: str, kind: str) -> None:
    make, settings, _, _ = KINDS[kind]
    make(tmp_path / "set")
    open_store(s3_uri).upload_dir(tmp_path / "set", "set")
    here, _ = ingest(config_of(tmp_path, kind, **settings))
    other = config_of(tmp_path / "there", kind, **{**settings, "root": f"{s3_uri}/set"})
    there, result = ingest(other)
    first, second = (
        pq.read_table(Path(str(store.local_path_or_none())) / "samples", schema=SAMPLES).sort_by("image_id")
        for store in (here, there)
    )
    assert first.equals(second)
    assert result.record.outputs["rejected"] == {}
    assert ingest(other)[1].is_skipped
    with pytest.raises(FolderError, match="no files there"):
        open_folder(f"{s3_uri}/nothing", other.data)
