"""Files appear whole or not at all, whatever happens to the writer."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uniemo_ray.store.atomic import (
    create_atomically,
    is_temporary,
    remove_stale_temporaries,
    rename_without_replacing,
    write_atomically,
)
from uniemo_ray.store.errors import StoreError

# Writes self-describing files (digest, then body) without end: one replaced again and again, and new ones.
WRITER = """
import hashlib, os, random, sys
from pathlib import Path
from uniemo_ray.store.atomic import create_atomically, write_atomically
folder, tag = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for i in range(10**6):
    body = os.urandom(random.randrange(1, 1 << 20))
    data = hashlib.sha256(body).hexdigest().encode() + body
    with write_atomically(folder / "replaced") as file:
        for start in range(0, len(data), 4096):
            file.write(data[start:start + 4096])
    create_atomically(folder / f"new-{tag}-{i}", data)
"""


def is_whole(path: Path) -> bool:
    data = path.read_bytes()
    return hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]


@pytest.mark.parametrize(("is_durable", "flushes"), [(True, 2), (False, 0)])
def test_only_a_durable_write_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_durable: bool, flushes: int
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with write_atomically(tmp_path / "a", is_durable=is_durable) as file:
        file.write(b"all")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"all"
    assert len(flushed) == flushes  # of the file and of its folder


def test_killed_writers_leave_no_torn_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    for attempt in range(12):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(attempt)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.01, 0.2))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        torn = [
            path.name for path in tmp_path.iterdir() if not is_temporary(path.name) and not is_whole(path)
        ]
        assert torn == []
    assert (tmp_path / "replaced").exists()
    assert any(path.name.startswith("new-") for path in tmp_path.iterdir())


def test_a_reader_sees_whole_files_while_one_is_replaced(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0"], stdout=subprocess.PIPE)
    path = tmp_path / "replaced"
    seen = set()
    try:
        started = time.monotonic()
        while (seconds := time.monotonic() - started) < 1 or (len(seen) < 2 and seconds < 60):
            if path.exists():
                data = path.read_bytes()
                assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]
                seen.add(data[:64])
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    assert len(seen) > 1


def fail_half_way(path: Path) -> None:
    with write_atomically(path) as file:
        file.write(b"new")
        raise ZeroDivisionError


def test_an_exception_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_creating_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a"
    assert create_atomically(path, b"first")
    assert not create_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_exclusive_rename_never_replaces(tmp_path: Path) -> None:
    first, second, target = tmp_path / "1", tmp_path / "2", tmp_path / "target"
    first.write_text("first")
    second.write_text("second")
    assert rename_without_replacing(first, target)
    assert not rename_without_replacing(second, target)
    assert target.read_text() == "first"
    assert second.exists()
    assert not first.exists()


def test_only_old_temporaries_are_removed(tmp_path: Path) -> None:
    old, young, other = tmp_path / "x" / ".tmp-1.part", tmp_path / ".tmp-2.part", tmp_path / "old.part"
    old.parent.mkdir()
    for path in (old, young, other):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    assert remove_stale_temporaries(tmp_path, older_than_s=60) == 1
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def test_full_disk_is_one_clear_line_and_keeps_what_was_there(tiny_disk: Path) -> None:
    path = tiny_disk / "a"
    create_atomically(path, b"old")
    for write in (
        lambda: create_atomically(tiny_disk / "b", bytes(2 << 20)),
        lambda: overwrite(path, bytes(2 << 20)),
    ):
        with pytest.raises(
            StoreError, match=r"disk full while writing .*/disk/[ab]: free some space"
        ) as caught:
            write()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tiny_disk.iterdir()] == ["a"]


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StoreError, match="a file stands where a folder is expected"):
        create_atomically(tmp_path / "a" / "b", b"")


def overwrite(path: Path, data: bytes) -> None:
    with write_atomically(path) as file:
        file.write(data)
