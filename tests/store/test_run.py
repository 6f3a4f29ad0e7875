"""A run folder takes only what is its own."""

import logging
from pathlib import Path

import pytest

from uniemo_ray.config import Config, TrainConfig
from uniemo_ray.store.errors import RunLockedError, StoreError
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.local import LocalStore
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import VERSION, RunFolder, changes, check_run
from uniemo_ray.store.steps import Pipeline, StepOutput


def snapshot(store: Store) -> dict[str, bytes]:
    return {key: store.read_bytes(key) for key in store.list()}


def test_a_new_folder_is_marked_and_the_config_written_under_the_lease(uri: str) -> None:
    run = RunFolder.open(uri, Config(seed=3))
    assert run.store.read_json("run.json")["version"] == VERSION
    assert not run.store.exists("config.json")
    with run.locked():
        assert Config.model_validate(run.store.read_json("config.json")) == Config(seed=3)
    assert check_run(run.store)


def test_a_folder_with_other_things_is_refused_untouched(uri: str, store: Store) -> None:
    store.write_bytes("thesis/final.tex", b"precious")
    with pytest.raises(ValueError, match=r"is no run folder but holds 'thesis/final.tex': choose") as caught:
        RunFolder.open(uri, Config())
    assert "\n" not in str(caught.value)
    assert snapshot(store) == {"thesis/final.tex": b"precious"}


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        (b'{"kind": "uniemo_ray run", "version": 99, "made_by": "7.0"}', r"run format 99 by uniemo_ray 7\.0"),
        (
            b'{"kind": "uniemo_ray run", "version": 1, "made_by": "0.1.0"}',
            r"format 1 .* did not declare all the settings .*: use that release, or choose a new folder",
        ),
        (b'{"kind": "another program"}', "run.json is not of a uniemo_ray run"),
        (b"[]", "run.json is not of a uniemo_ray run"),
        (b"no json", "run.json is not of a uniemo_ray run"),
    ],
)
def test_another_version_is_refused_untouched(uri: str, store: Store, marker: bytes, text: str) -> None:
    store.write_bytes("run.json", marker)
    store.write_bytes("config.json", b"theirs")
    with pytest.raises(ValueError, match=text) as caught:
        RunFolder.open(uri, Config())
    assert "\n" not in str(caught.value)
    assert snapshot(store) == {"run.json": marker, "config.json": b"theirs"}


def test_a_second_driver_is_refused_and_changes_nothing(uri: str) -> None:
    with RunFolder.open(uri, Config(seed=1)).locked() as run:
        before = snapshot(run.store)
        with (
            pytest.raises(RunLockedError, match="is in use by process"),
            RunFolder.open(uri, Config(seed=2)).locked(),
        ):
            pass
        assert snapshot(run.store) == before
        with run.locked():  # inside itself it is one and the same lease
            assert run.lease.epoch == 1
        run.lease.check()
    assert run.lease.epoch == 0


class Forgetful(LocalStore):
    """Storage that replaces what is to be created only once, as some S3 servers do."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.write_bytes(key, data)
        return True


def test_storage_without_conditional_writes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniemo_ray.store.run.open_store", lambda _: Forgetful(tmp_path))
    with pytest.raises(StoreError, match="If-None-Match is ignored"):
        RunFolder.open(str(tmp_path), {})


def test_the_late_record_of_a_followed_driver_does_not_count(tmp_path: Path) -> None:
    """Of a growing step: otherwise a smaller submission would be finished by a larger one's images."""
    first, second = (RunFolder.open(str(tmp_path), {}) for _ in range(2))

    def records(run: RunFolder, n: int) -> StepRecord:
        pipeline = Pipeline(run)
        pipeline.step("grow", run=lambda _: StepOutput({"n": n}), settings={"n": n}, grows_by=["n"])
        return pipeline.run()[0].record

    small = records(first, 1)
    large = records(second, 2)
    assert (small.epoch, large.epoch) == (1, 2)
    assert first.finished("grow", small.fingerprint) is None  # forgotten when the step grew
    first.store.write_json(f"steps/history/grow-{small.fingerprint[:12]}.json", small.to_dict())
    assert first.finished("grow", small.fingerprint) is None
    assert first.finished("grow", large.fingerprint) == large


def test_the_lease_is_given_back_after_an_error(uri: str) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder.open(uri, {}).locked():
        raise ZeroDivisionError
    with RunFolder.open(uri, {}).locked() as run:
        assert run.lease.epoch == 2


def test_changed_settings_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for config in (Config(), Config(stage1=TrainConfig(epochs=3))):
        with RunFolder.open(str(tmp_path), config).locked():
            pass
    assert "changed since the last submission: stage1.epochs: 15 -> 3" in caplog.text
    assert caplog.text.count("changed since") == 1


def test_what_killed_writers_left_is_not_something_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123.part").touch()
    assert not check_run(open_store(str(tmp_path)))
    assert check_run(RunFolder.open(str(tmp_path), {}).store)


def test_a_damaged_record_is_named_and_not_guessed(tmp_path: Path) -> None:
    run = RunFolder.open(str(tmp_path), {})
    run.store.write_json("steps/a.json", {"name": "a"})
    with pytest.raises(
        StoreError, match=r"steps/a\.json: commit record lacks fingerprint.*: uniemo store repair"
    ):
        run.record("a")
    assert run.record("b") is None


def test_changes_lists_every_difference_by_its_path() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    after = {"a": {"b": 1, "c": [1, 3]}, "e": None, "d": "x"}
    assert changes(before, after) == ["a.c: [1, 2] -> [1, 3]", 'd: 1 -> "x"']
    assert changes(before, before) == []
