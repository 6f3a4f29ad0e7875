"""The actor that reads the images of a data set; it imports no model."""

from collections.abc import Callable

import pyarrow as pa

from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.sample_shards import SamplesFormat


class SampleActor:
    """PLAN rows to READ rows, which become shards of canonical samples."""

    form = SamplesFormat()

    def __init__(
        self, reader: SampleReader, prepare: Callable[[], object] | None = None, device: str = "cpu"
    ) -> None:
        """Make the data folder on this machine, where that is needed.

        Args:
            reader: reads the entries.
            prepare: called once, for a folder that each machine makes for itself.
            device: every actor is given one; reading images needs none.
        """
        self.reader = reader
        if prepare:
            prepare()

    def __call__(self, table: pa.Table) -> pa.Table:
        """A sample, or a reason for having none, for each entry."""
        return self.reader.read(table)

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        """Entries that could not be read, with this reason."""
        return self.reader.reject(table, reason)
