"""Some columns of committed shards, without the others: what a driver may read of a set of any size."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from uniemo_ray.read_ahead import read_ahead
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import REPAIR, REPAIR_MISSING, DamagedError
from uniemo_ray.store.shards import ShardEntry, listed

READERS = 8
"""Files that one process reads at a time: on S3 each costs a few round trips."""


def iterate_columns(store: Store, prefix: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of all committed rows, one table for each shard, in the order of names.

    Other columns are not read from storage. So the pages that are read are compared with their own checksums,
    and not the file with its digest. At most `READERS` shards are in memory.

    Raises:
        FileNotFoundError: nothing is committed under the prefix.
        DamagedError: a listed shard is missing or not as it was committed.
    """
    entries, (filesystem, root) = listed(store, prefix), store.arrow()

    def read(entry: ShardEntry) -> pa.Table:
        return read_columns(filesystem, f"{root}/{entry.key}", columns, rows=entry.rows)

    yield from read_ahead(entries, read, ahead=READERS - 1, threads=READERS)


def read_columns(
    filesystem: FileSystem,
    path: str,
    columns: Sequence[str],
    *,
    rows: int,
    check: Callable[[pa.Schema], None] | None = None,
) -> pa.Table:
    """Columns of one committed shard.

    Args:
        filesystem: of the store.
        path: of the shard there.
        columns: their names.
        rows: what the shard's entry says.
        check: raises where the shard has another schema than it should.

    Raises:
        DamagedError: the shard is missing, is no whole Parquet file or has another number of rows.
    """
    try:
        with filesystem.open_input_file(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if check is not None:
                check(parquet.schema_arrow)
            table = parquet.read(columns=list(columns), use_threads=False)
    except FileNotFoundError:
        raise DamagedError(f"{path} is listed but missing: {REPAIR_MISSING}") from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
            raise  # of the disk, or of S3: the file may be sound
        raise DamagedError(f"{path} is no readable Parquet ({error}): {REPAIR}") from None
    if table.num_rows != rows:
        raise DamagedError(f"{path} has {table.num_rows} rows, its entry says {rows}: {REPAIR}")
    return table.replace_schema_metadata(None)
