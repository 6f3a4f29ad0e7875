import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.training.loading.shards import make_rows
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.loading import cache as cache_module
from uniemo_ray.training.loading.cache import KEEP_S, CacheFullError, OpenPiece, PieceCache
from uniemo_ray.training.loading.pieces import ShardRows, read_piece

SIZE = 10_000
"""Bytes of an image: a piece of ten rows has 100 kB."""


@pytest.fixture
def data(tmp_path: Path) -> ShardRows:
    found = make_rows(open_store(str(tmp_path / "store")), 60, per_shard=10, size=SIZE)
    pieces = [piece for part in found.pieces for piece in _split(part)]
    return ShardRows(pieces=tuple(pieces), columns=found.columns, filesystem=found.filesystem)


def _split(piece: Any) -> list[Any]:
    return [piece._replace(parts=(part,), bytes=piece.bytes // len(piece.parts)) for part in piece.parts]


def opened(cache: PieceCache, data: ShardRows, number: int, *, is_needed: bool = True) -> OpenPiece | None:
    return cache.open(data.pieces[number], data.columns, data.filesystem, is_needed=is_needed)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.arrow"))


def test_a_piece_is_read_from_storage_once(
    data: ShardRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    monkeypatch.setattr(cache_module, "read_piece", lambda *a: read.append(a) or read_piece(*a))
    for _ in range(3):  # three processes, as it were
        piece = opened(PieceCache(tmp_path / "cache"), data, 0)
        assert piece is not None
        assert piece.table.equals(read_piece(data.pieces[0], data.columns, data.filesystem))
        piece.close()
    assert len(read) == 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_the_budget_is_kept_and_the_longest_unused_goes(data: ShardRows, tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "cache", budget_bytes=330_000)
    for number in (0, 1, 2, 0, 3):
        piece = opened(cache, data, number)
        assert piece is not None
        piece.close()
        assert size_of(cache.folder) <= 330_000
        time.sleep(0.02)
    left = {path.stem for path in cache.folder.glob("*.arrow")}
    assert left == {data.pieces[number].name(data.columns) for number in (0, 2, 3)}


def test_pieces_in_use_stay_and_only_needed_ones_exceed_the_budget(
    data: ShardRows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = (PieceCache(tmp_path / "cache", budget_bytes=220_000) for _ in range(2))
    first, second = opened(mine, data, 0), opened(other, data, 1)
    assert first
    assert second
    assert opened(mine, data, 2, is_needed=False) is None
    assert not caplog.records
    third = opened(mine, data, 2)
    assert third is not None
    assert "resources.cache_gb" in caplog.text
    assert size_of(mine.folder) > 300_000
    first.close()
    second.close()
    fourth = opened(mine, data, 3, is_needed=False)
    assert fourth is not None
    assert size_of(mine.folder) <= 220_000
    assert first.table["image"][9].as_py().startswith(b"0000000009")  # its file is gone, its rows are not


def test_a_file_that_is_cut_off_is_read_again(data: ShardRows, tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "cache")
    piece = opened(cache, data, 0)
    assert piece is not None
    piece.close()
    (path,) = cache.folder.glob("*.arrow")
    path.write_bytes(path.read_bytes()[:50_000])
    again = opened(cache, data, 0)
    assert again is not None
    assert again.table.num_rows == 10


def test_what_nobody_used_for_a_day_goes(data: ShardRows, tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "cache")
    old, used, new = (opened(cache, data, number) for number in range(3))
    assert old
    assert used
    assert new
    old.close()
    new.close()
    for number in (0, 1):
        path = cache.folder / f"{data.pieces[number].name(data.columns)}.arrow"
        os.utime(path, (time.time() - KEEP_S - 60,) * 2)
    (cache.folder / "killed.arrow.part").write_bytes(b"x")
    os.utime(cache.folder / "killed.arrow.part", (time.time() - KEEP_S,) * 2)
    cache.clean()
    left = {path.name for path in cache.folder.iterdir() if "lock" not in path.name}
    assert left == {f"{data.pieces[number].name(data.columns)}.arrow" for number in (1, 2)}


def test_a_full_disk_is_one_line(data: ShardRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unused makes room first."""
    cache = PieceCache(tmp_path / "cache")
    first, second = opened(cache, data, 0), opened(cache, data, 1)
    assert first
    assert second
    first.close()
    room = [2]
    write = cache_module._write

    def full(table: pa.Table, path: Path) -> None:
        if len(list(cache.folder.glob("*.arrow"))) >= room[0]:
            raise OSError("[Errno 28] Error writing bytes to file. Detail: No space left on device")
        write(table, path)

    monkeypatch.setattr(cache_module, "_write", full)
    third = opened(cache, data, 2)
    assert third is not None
    with pytest.raises(CacheFullError, match=r"no space left in .*cache.*resources\.scratch") as found:
        opened(cache, data, 3)
    assert "\n" not in str(found.value)
    assert not list(cache.folder.glob("*.part"))


def _read_slowly(data: ShardRows, folder: Path, log: Path, seconds: float) -> None:
    def slow(*arguments: Any) -> pa.Table:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return read_piece(*arguments)

    cache_module.read_piece = slow
    for number in range(3):
        piece = opened(PieceCache(folder), data, number)
        assert piece is not None
        assert piece.table["image_id"][0].as_py() == f"i{10 * number:04d}"


@pytest.mark.slow
def test_two_processes_read_each_piece_once(data: ShardRows, tmp_path: Path) -> None:
    work = partial(_read_slowly, data, tmp_path / "cache", tmp_path / "log", 0.2)
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=work) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 3


@pytest.mark.slow
def test_a_process_killed_while_it_converts_leaves_nothing_in_the_way(
    data: ShardRows, tmp_path: Path
) -> None:
    log, folder = tmp_path / "log", tmp_path / "cache"
    process = multiprocessing.get_context("spawn").Process(target=_read_slowly, args=(data, folder, log, 60))
    process.start()
    while not log.exists():
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    name = data.pieces[0].name(data.columns)
    (folder / f"{name}.arrow.part").write_bytes(b"half")
    piece = opened(PieceCache(folder), data, 0)
    assert piece is not None
    assert piece.table.num_rows == 10
    assert not list(folder.glob("*.part"))


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PieceCache(tmp_path / "cache")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ValueError, match="belongs to another user"):
        PieceCache(tmp_path / "cache")
