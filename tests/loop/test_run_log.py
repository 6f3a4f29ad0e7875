"""The driver's log in the run folder."""

import logging
import sys
import time
from pathlib import Path

import pytest

from uniemo_ray.loop import run_log
from uniemo_ray.loop.run_log import kept_log
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_records_and_printed_lines_are_kept(store, capsys):
    logger = logging.getLogger("uniemo_ray.test")
    with kept_log(store, epoch=3):
        logger.warning("a record")
        print("a printed line")
        print("a worker's line", file=sys.stderr)
    logger.warning("after the end")
    print("after the end")
    kept = store.read_bytes("logs/00000003-001.log").decode()
    record, *printed = kept.splitlines()
    assert record.endswith(" a record")
    assert printed == ["a printed line", "a worker's line"]
    out, err = capsys.readouterr()
    assert out == "a printed line\nafter the end\n"
    assert "a worker's line" in err


def test_lines_are_there_while_the_run_goes_on(store):
    with kept_log(store, epoch=1, every_s=0.05):
        print("early")
        deadline = time.monotonic() + 5
        while not store.exists("logs/00000001-001.log"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert store.read_bytes("logs/00000001-001.log") == b"early\n"


def test_an_error_is_the_last_that_is_kept(store):
    with pytest.raises(ZeroDivisionError), kept_log(store, epoch=1):
        raise ZeroDivisionError("in the middle")
    assert store.read_bytes("logs/00000001-001.log").decode().endswith("ZeroDivisionError: in the middle\n")


def test_a_long_log_has_several_files_and_no_line_twice(store, monkeypatch):
    monkeypatch.setattr(run_log, "PART_CHARACTERS", 50)
    with kept_log(store, epoch=1, every_s=0.01):
        for number in range(40):
            print(f"line {number}")
            time.sleep(0.005)
    parts = store.list("logs")
    assert len(parts) > 2
    text = "".join(store.read_bytes(part).decode() for part in parts)
    assert text.splitlines() == [f"line {number}" for number in range(40)]


def test_storage_that_fails_ends_no_run_and_loses_no_line(store, monkeypatch):
    monkeypatch.setattr(run_log, "PART_CHARACTERS", 5)
    write = store.write_bytes

    def fail(*_: object) -> None:
        raise StoreError("gone")

    monkeypatch.setattr(store, "write_bytes", fail)
    with kept_log(store, epoch=1, every_s=0.01):
        print("while it is gone")
        time.sleep(0.1)
        monkeypatch.setattr(store, "write_bytes", write)
    assert b"while it is gone\n" in store.read_bytes("logs/00000001-001.log")
