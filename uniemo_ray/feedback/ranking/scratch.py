"""Interim results of a long computation in a store: arrays to be read one by one, records of what is done."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from uniemo_ray.store.base import Store

_READERS = 8
"""Files that one process reads at a time: on S3 each costs a few round trips."""
_COLUMN = "value"


def once(scratch: Store, key: str, make: Callable[[], Any]) -> Any:
    """The JSON record under a key; if there is none, the work is done and recorded.

    `make` writes its files before it returns, and two runs of it write the same: so a record means that
    the files are there and whole, and a process that dies, or two that race, do no harm.
    """
    name = f"{key}.json"
    try:
        return scratch.read_json(name)
    except FileNotFoundError:
        record = make()
        scratch.write_json(name, record)
        return record


def write_arrays(scratch: Store, key: str, arrays: Iterable[pa.Array], of: pa.DataType) -> None:
    """Write arrays of one type as a file of Arrow's IPC format, in one step; each can be read alone."""
    schema = pa.schema([(_COLUMN, of)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for array in arrays:
            if not len(array):  # Arrow writes an empty slice of strings with all offsets of the whole array
                array = pa.array([], of)
            writer.write_batch(pa.record_batch([array], schema=schema))
    scratch.write_bytes(key, sink.getvalue().to_pybytes())


def read_arrays(scratch: Store, keys: Sequence[str], number: int) -> list[pa.Array]:
    """Array `number` of each of some files."""
    filesystem, root = scratch.arrow()

    def read(key: str) -> pa.Array:
        with filesystem.open_input_file(f"{root}/{key}") as source:
            return pa.ipc.open_file(source).get_batch(number)[_COLUMN]

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, keys))


def read_all_arrays(scratch: Store, key: str) -> list[pa.Array]:
    """All arrays of a file."""
    filesystem, root = scratch.arrow()
    with filesystem.open_input_file(f"{root}/{key}") as source:
        file = pa.ipc.open_file(source)
        return [file.get_batch(number)[_COLUMN] for number in range(file.num_record_batches)]
