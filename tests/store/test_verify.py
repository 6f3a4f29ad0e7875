"""Damage is named, and mending it removes just that, so that the next submission makes it anew."""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import DamagedError, RunLockedError, StoreError
from uniemo_ray.store.local import LocalStore
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard, committed
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput
from uniemo_ray.store.verify import repair_run, verify_run

SHARDS = 4


def commit_images(context: StepContext) -> StepOutput:
    for number in range(SHARDS):
        rows = pa.table({"image_id": [f"i{number}-{k}" for k in range(3)]})
        commit_shard(context.artefacts, f"images/part-{number:05d}", rows, plan_hash="p")
    context.artefacts.write_bytes("notes.parquet", b"not a shard")
    return StepOutput()


def make_run(uri: str) -> RunFolder:
    run = RunFolder.open(uri, {"a": 1})
    submit(run)
    return run


def submit(run: RunFolder) -> dict[str, bool]:
    """Run two steps; name to whether it was skipped."""
    pipeline = Pipeline(run)
    pipeline.step("generate", run=commit_images, settings={})
    pipeline.step("later", run=lambda _: StepOutput(), settings={}, inputs=["generate"])
    return {result.record.name: result.is_skipped for result in pipeline.run()}


def images_of(run: RunFolder) -> Store:
    record = run.record("generate")
    assert record is not None
    return run.store.sub(record.artefacts)


def damage(run: RunFolder) -> None:
    """One of each kind."""
    store = images_of(run)
    flipped = bytearray(store.read_bytes("images/part-00000.parquet"))
    flipped[len(flipped) // 2] ^= 1
    store.write_bytes("images/part-00000.parquet", bytes(flipped))
    store.delete("images/part-00001.parquet")
    store.write_bytes("images/part-00009.parquet", b"PAR1")
    twice = pa.table({"image_id": ["i3-0", "new"]})
    commit_shard(store, "images/part-00010", twice, plan_hash="p")


def test_a_sound_run_has_no_findings(uri: str) -> None:
    report = verify_run(make_run(uri).store)
    assert report.findings == ()
    assert report.tally[:3] == (1, SHARDS, 3 * SHARDS)


def test_each_kind_of_damage_is_named(uri: str) -> None:
    run = make_run(uri)
    damage(run)
    found = {(finding.kind, finding.name) for finding in verify_run(run.store).findings}
    assert found == {
        ("torn", "images/part-00000"),
        ("missing", "images/part-00001"),
        ("foreign", "images/part-00009"),
        ("duplicated", "images/part-00010"),
    }


def test_mending_and_submitting_again_makes_just_that_anew(uri: str) -> None:
    run = make_run(uri)
    images = images_of(run)
    before = committed(images)
    damage(run)
    assert len(repair_run(run)) == 4
    assert set(committed(images)) == {"images/part-00002", "images/part-00003"}
    assert submit(run) == {"generate": False, "later": True}
    after = committed(images)
    assert {name: entry.sha256 for name, entry in after.items()} == {
        name: entry.sha256 for name, entry in before.items()
    }
    assert verify_run(run.store).findings == ()
    assert submit(run) == {"generate": True, "later": True}


@pytest.mark.parametrize("lost", ["entry", "shard and entry", "half of the entry"])
def test_what_is_lost_with_its_entry_comes_back(uri: str, lost: str) -> None:
    run = make_run(uri)
    images = images_of(run)
    before = committed(images)
    entry = "manifest/images/part-00001.json"
    if lost == "half of the entry":
        images.write_bytes(entry, images.read_bytes(entry)[:99])
    else:
        images.delete(entry)
    if lost == "shard and entry":
        images.delete("images/part-00001.parquet")
    found = {(finding.kind, finding.name) for finding in verify_run(run.store).findings}
    assert (
        found
        == {
            "entry": {("foreign", "images/part-00001"), ("missing", "")},
            "shard and entry": {("missing", "")},
            "half of the entry": {("torn", "images/part-00001")},
        }[lost]
    )
    repair_run(run)
    assert submit(run) == {"generate": False, "later": True}
    assert {name: entry.sha256 for name, entry in committed(images).items()} == {
        name: entry.sha256 for name, entry in before.items()
    }
    assert verify_run(run.store).findings == ()


@pytest.mark.parametrize("survived", range(5))
def test_mending_that_dies_in_between_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    run = make_run(str(tmp_path))
    before = committed(images_of(run))
    images_of(run).write_bytes("images/part-00001.parquet", b"PAR1")
    deletions = iter(range(survived))

    def delete(self: LocalStore, key: str) -> None:
        if next(deletions, None) is None:
            raise KeyboardInterrupt
        original(self, key)

    original = LocalStore.delete
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            repair_run(run)
    for _ in range(2):
        submit(run)
        repair_run(run)
    submit(run)
    assert verify_run(run.store).findings == ()
    assert {name: entry.sha256 for name, entry in committed(images_of(run)).items()} == {
        name: entry.sha256 for name, entry in before.items()
    }


RECORDS = ("steps/generate.json", "steps/history/generate-")


@pytest.mark.parametrize("which", RECORDS)
def test_a_damaged_record_is_named_and_its_step_finds_its_shards(uri: str, which: str) -> None:
    run = make_run(uri)
    before = committed(images_of(run))
    (key,) = [key for key in run.store.list("steps") if key.startswith(which)]
    run.store.write_bytes(key, run.store.read_bytes(key)[:99])
    (finding,) = verify_run(run.store).findings
    assert (finding.kind, f"{finding.folder}/{finding.name}") == ("torn", key)
    assert repair_run(run) == (finding,)
    assert submit(run) == {"generate": which == RECORDS[0], "later": True}
    assert committed(images_of(run)) == before
    assert verify_run(run.store).findings == ()


def test_a_damaged_seal_is_named_and_made_anew(uri: str) -> None:
    run = make_run(uri)
    repair_run(run)  # seals
    images = images_of(run)
    before, (seal,) = committed(images), images.list("sealed")
    images.write_bytes(seal, images.read_bytes(seal)[:-5])
    with pytest.raises(DamagedError, match=r"no readable seal .*uniemo store repair"):
        committed(images)
    (finding,) = verify_run(run.store).findings
    assert (finding.kind, finding.name) == ("torn", seal)
    assert repair_run(run) == (finding,)
    assert committed(images) == before
    assert seal not in images.list("sealed")
    assert submit(run) == {"generate": True, "later": True}
    assert verify_run(run.store).findings == ()


def test_storage_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(str(tmp_path))
    before = sorted(run.store.list())

    def gone(self: LocalStore, key: str) -> bytes:
        if key.endswith(broken):
            raise StoreError("S3 server is unreachable")
        return original(self, key)

    original = LocalStore.read_bytes
    monkeypatch.setattr(LocalStore, "read_bytes", gone)
    for broken in ("part-00001.json", "generate.json", "part-00001.parquet"):  # noqa: B007 (`gone` uses it)
        with pytest.raises(StoreError, match="unreachable"):
            repair_run(run)
    kept = [key for key in before if not key.startswith("lock/")]
    assert set(kept) <= set(run.store.list())


def test_what_an_older_driver_lists_after_mending_does_not_count(uri: str) -> None:
    run = make_run(uri)
    folder = run.record("generate").artefacts  # type: ignore[union-attr]
    with run.locked():
        older = run.fenced_store.sub(folder)
        late = asdict(
            commit_shard(older, "images/part-00009", pa.table({"image_id": ["late"]}), plan_hash="p")
        )
        older.delete("manifest/images/part-00009.json")  # the actor pauses before it lists its shard
    (finding,) = repair_run(run)
    assert (finding.kind, finding.name) == ("foreign", "images/part-00009")
    run.store.sub(folder).write_json("manifest/images/part-00009.json", late)
    assert submit(run) == {"generate": False, "later": True}
    assert sorted(committed(images_of(run))) == [f"images/part-{k:05d}" for k in range(SHARDS)]
    assert verify_run(run.store).findings == ()


def test_a_run_at_work_is_left_alone(uri: str) -> None:
    run = make_run(uri)
    damage(run)
    other = RunFolder.open(uri, {"a": 1})
    with run.locked(), pytest.raises(RunLockedError):
        repair_run(other)
    assert len(verify_run(run.store).findings) == 4
