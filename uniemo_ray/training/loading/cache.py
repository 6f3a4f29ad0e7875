"""Pieces of shards on this machine's disk: read from storage once, then mapped by all of its processes.

They lie in one folder below the scratch folder, as Arrow files without compression, so that any row costs no
more than its bytes. Whoever uses a piece holds a shared lock on its file. Room for another one comes from
those without a lock, the longest unused first; and removing a file never hurts a process that maps it.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystem

from uniemo_ray.scratch import own_folder
from uniemo_ray.store.errors import is_full
from uniemo_ray.store.made_once import locked, made_once
from uniemo_ray.training.loading.pieces import Piece, read_piece

logger = logging.getLogger(__name__)

KEEP_S = 24 * 3600.0
"""Pieces that nobody has used for so long are removed when training starts on their machine."""
FREE_SHARE = 0.5
"""Share of the disk's free space that pieces may take by default."""
_UNFINISHED_S = 3600.0
_LOCKS = 64
_ENDING, _UNFINISHED = ".arrow", ".part"


class CacheFullError(ValueError):
    """The disk has no room for the pieces that are in use."""


class OpenPiece:
    """A mapped piece; its file is not removed to make room as long as this is open.

    Raises:
        FileNotFoundError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # no locks on this file system: then it may be read from storage again
            fcntl.flock(self._file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            os.utime(path)
        try:
            # Through the open file: the path may be gone by now.
            self.table: pa.Table = pa.ipc.open_file(pa.memory_map(f"/dev/fd/{self._file}")).read_all()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Allow the file's removal; what was read of it stays valid."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class PieceCache:
    """The pieces on this machine, within a budget.

    Args:
        folder: Made if it is not there; by default one for this user below the scratch folder.
        budget_bytes: Largest size of all pieces; None for half of the space that is free without them.

    Raises:
        ValueError: the folder is another user's, who could put any images there.
    """

    def __init__(self, folder: Path | None = None, *, budget_bytes: int | None = None) -> None:
        self.folder = own_folder("uniemo-pieces", folder)
        self._budget, self._is_warned = budget_bytes, False

    def open(
        self, piece: Piece, columns: Sequence[str], filesystem: FileSystem, *, is_needed: bool = True
    ) -> OpenPiece | None:
        """A piece's rows, from the disk or else from storage.

        Args:
            piece: What to open.
            columns: What is read of it.
            filesystem: Where its shards lie.
            is_needed: Whether a step waits for it. Only such a piece may exceed the budget, and says so.

        Returns:
            The piece; None where it is not needed yet and there is no room.

        Raises:
            CacheFullError: the disk is full.
        """
        name = piece.name(columns)
        target = self.folder / f"{name}{_ENDING}"
        while True:
            try:
                return OpenPiece(target)
            except FileNotFoundError:
                pass
            except pa.ArrowInvalid:  # cut off by a machine that went down
                target.unlink(missing_ok=True)
            if not is_needed and not self._has_room(piece.bytes):
                return None
            make = partial(self._make, piece, columns, filesystem)
            made_once(target, make, lock=self.folder / f"lock-{int(name[:8], 16) % _LOCKS:02d}")

    def clean(self) -> None:
        """Remove what nobody has used for a day, and what killed processes left unfinished."""
        now = time.time()
        with locked(self.folder / "lock-room"):
            for path, status in self._files():
                limit = _UNFINISHED_S if path.suffix == _UNFINISHED else KEEP_S
                if now - status.st_mtime > limit:
                    _remove_unused(path)

    def _make(self, piece: Piece, columns: Sequence[str], filesystem: FileSystem, unfinished: Path) -> None:
        table = read_piece(piece, columns, filesystem).combine_chunks()
        with locked(self.folder / "lock-room"):
            self._make_room(table.nbytes)
            try:
                _write(table, unfinished)
                return
            except OSError as error:
                unfinished.unlink(missing_ok=True)
                if not is_full(error):
                    raise
            self._make_room(None)
            try:
                _write(table, unfinished)
            except OSError as error:
                unfinished.unlink(missing_ok=True)
                if not is_full(error):
                    raise
                raise CacheFullError(
                    f"no space left in {self.folder} for the training images that a step needs: free some, "
                    f"or set resources.scratch to a folder on a larger disk"
                ) from None

    def _has_room(self, size: int) -> bool:
        with locked(self.folder / "lock-room"):
            files = self._files()
            used, budget = sum(status.st_size for _, status in files), self._limit(files)
            idle = sum(status.st_size for path, status in files if path.suffix == _ENDING and _is_idle(path))
        return bool(used - idle + size <= budget)

    def _make_room(self, size: int | None) -> None:
        """Remove the longest unused pieces until `size` more bytes fit; None: all that are unused."""
        files = sorted(self._files(), key=lambda file: file[1].st_mtime)
        used, budget = sum(status.st_size for _, status in files), self._limit(files)
        for path, status in files:
            if size is not None and used + size <= budget:
                return
            if path.suffix == _ENDING and _remove_unused(path):
                used -= status.st_size
        if size is not None and used + size > budget and not self._is_warned:
            self._is_warned = True
            logger.warning(
                "%s: the images that steps need take more than the %.1f GB of resources.cache_gb or of free "
                "space: %.1f GB are used",
                self.folder,
                budget / 1e9,
                (used + size) / 1e9,
            )

    def _limit(self, files: Sequence[tuple[Path, os.stat_result]]) -> float:
        if self._budget is not None:
            return self._budget
        return FREE_SHARE * (shutil.disk_usage(self.folder).free + sum(s.st_size for _, s in files))

    def _files(self) -> list[tuple[Path, Any]]:
        found = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith((_ENDING, _UNFINISHED)):
                with suppress(FileNotFoundError):
                    found.append((Path(entry.path), entry.stat()))
        return found


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _is_idle(path: Path) -> bool:
    """Whether no process has the piece open."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here; who has mapped it keeps what it has
    finally:
        os.close(file)
    return True


def _remove_unused(path: Path) -> bool:
    if not _is_idle(path):
        return False
    path.unlink(missing_ok=True)
    return True
