"""Between Arrow tables and the numpy columns that `inference` speaks."""

# M rows, K numbers

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uniemo_ray.data.schema import SAMPLES

LABELS = ("image_id", "emotion", "scene", "objects")
"""What is handed on beside features."""
Columns = dict[str, NDArray[Any]]


def to_columns(table: pa.Table, names: Sequence[str]) -> Columns:
    """Those of the columns that the table has."""
    present = [name for name in names if name in table.column_names]
    return {name: table[name].to_numpy(zero_copy_only=False) for name in present}


def to_table(columns: Columns) -> pa.Table:
    """Labels as in SAMPLES, and (M, K) features as lists of K float32."""
    arrays = {}
    for name, column in columns.items():
        if column.ndim == 2:
            flat = pa.array(np.ascontiguousarray(column, dtype=np.float32).reshape(-1))
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
        else:
            kind = SAMPLES.field(name).type if name in LABELS else None
            arrays[name] = pa.array(column.tolist(), type=kind)
    return pa.table(arrays)


def conform(columns: Columns, schema: pa.Schema) -> pa.Table:
    """Columns of a callable as a table of this schema; NaN becomes null."""
    arrays = [pa.array(columns[field.name].tolist(), field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
