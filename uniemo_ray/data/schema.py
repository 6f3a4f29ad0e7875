"""The canonical samples: one pyarrow schema between the readers and everything that trains on them.

A shard is one Parquet file; `sample_shards.py` says what its footer holds.
"""

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES: pa.Schema = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # unique over all splits
        pa.field("image", pa.binary(), nullable=False),  # the file's own bytes, never re-encoded
        pa.field("emotion", pa.string(), nullable=False),  # a label of the data set's label space
        pa.field("scene", pa.string()),  # null: the image has none
        pa.field("objects", pa.list_(pa.string()), nullable=False),  # empty: the image has none
        pa.field("split", pa.string(), nullable=False),  # one of SPLITS
        pa.field("source", pa.string(), nullable=False),  # name of the data set
        pa.field("sha256", pa.string(), nullable=False),  # of `image`, hexadecimal
        pa.field("width", pa.int32(), nullable=False),  # pixels, as shown (EXIF orientation applied)
        pa.field("height", pa.int32(), nullable=False),
        pa.field("brightness", pa.float32()),  # 0 to 1, null: not annotated
        pa.field("colorfulness", pa.float32()),  # 0 to 1, null: not annotated
    ]
)

_FEW_VALUES = ["emotion", "scene", "split", "source"]
ROW_GROUP = 256
"""Rows of a group, which can be read without the rest of the shard."""


def encode_table(table: pa.Table) -> pa.Buffer:
    """The bytes of one Parquet file; the same rows and metadata give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        # Images are compressed already: doing it again would only take time.
        compression={path: "none" if path == "image" else "zstd" for path in _leaves(table.schema)},
        use_dictionary=[name for name in _FEW_VALUES if name in table.column_names],
        write_statistics=[name for name in table.column_names if name not in ("image", "objects")],
        row_group_size=ROW_GROUP,
    )
    return sink.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    """Column names as Parquet spells them."""
    return [
        f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name for column in schema
    ]
