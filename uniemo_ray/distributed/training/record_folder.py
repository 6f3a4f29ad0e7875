"""What rank 0 writes beside the checkpoints: metrics, and the weights of the best epoch."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from pyarrow import fs
from safetensors.torch import save_file

from uniemo_ray.distributed.training.work import Work
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.parts import StageParts

BEST = "best-"


class RecordFolder:
    """Where rank 0 writes: the storage itself if it is a local disk, else a copy that is uploaded."""

    def __init__(self, work: Work, stack: ExitStack) -> None:
        self._filesystem, self._target = work.filesystem, work.records
        self._is_local = isinstance(work.filesystem, fs.LocalFileSystem)
        temporary = tempfile.TemporaryDirectory
        self.local = Path(work.records if self._is_local else stack.enter_context(temporary()))

    def sync(self) -> None:
        """Upload what is new, unless it is in place already."""
        if not self._is_local:
            fs.copy_files(str(self.local), self._target, destination_filesystem=self._filesystem)

    def copy_to(self, folder: Path, name: str) -> None:
        """Copy one file to a local folder, from the storage: an attempt before may have written it."""
        fs.copy_files(
            f"{self._target}/{name}", str(folder / Path(name).name), source_filesystem=self._filesystem
        )

    def remove(self, *, starting: str, but: str | None) -> None:
        """Remove files whose names start with `starting`, and not with `but`, here and in the storage."""
        for info in self._filesystem.get_file_info(fs.FileSelector(self._target, allow_not_found=True)):
            is_kept = but is not None and info.base_name.startswith(but)
            if info.base_name.startswith(starting) and not is_kept:
                self._filesystem.delete_file(info.path)
                (self.local / info.base_name).unlink(missing_ok=True)


class BestWeights:
    """The exported weights of the best epoch so far, one file per module, named by the epoch.

    A file of its own for each epoch: an attempt that dies before its checkpoint leaves the older one whole.
    """

    def __init__(self, parts: StageParts, engine: Engine, records: RecordFolder | None) -> None:
        self._parts, self._engine, self._records = parts, engine, records

    def keep(self, epoch: int) -> None:
        """Write the weights as they are now; collective."""
        export(self._parts, self._engine, self._records.local if self._records else None, prefix=_name(epoch))
        if self._records is not None:
            self._records.sync()

    def export(self, folder: Path, epoch: int) -> None:
        """Put the weights of an epoch into a folder as the stage's own (rank 0)."""
        if self._records is None:
            return
        for name in self._parts.exports:
            file = f"{_name(epoch)}{name}.safetensors"
            self._records.copy_to(folder, file)
            (folder / file).rename(folder / f"{name}.safetensors")

    def clean(self, *, keep: int | None) -> None:
        """Remove the weights of all epochs but one, after a checkpoint that names it or holds it (rank 0)."""
        if self._records is not None:
            self._records.remove(starting=BEST, but=None if keep is None else _name(keep))


def export(parts: StageParts, engine: Engine, folder: Path | None, *, prefix: str = "") -> None:
    """Write each module's weights as `<prefix><name>.safetensors` (rank 0); collective.

    They are the averaged ones where the stage keeps an average.
    """
    with engine.averaged_weights():
        for name, module in parts.exports.items():
            weights = engine.state_dict(module, is_trained_only=name != "net")
            if engine.rank == 0 and folder is not None:
                save_file(weights, folder / f"{prefix}{name}.safetensors", metadata={"format": "pt"})


def _name(epoch: int) -> str:
    return f"{BEST}{epoch:04d}-"
