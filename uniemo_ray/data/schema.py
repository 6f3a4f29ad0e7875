"""The canonical samples: one pyarrow schema between the readers and everything that trains on them.

A shard is one Parquet file. What it was made from stands in its footer, so that a later run can tell
a finished shard from one of other content without reading its images.
"""

import logging
import os
import uuid
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

logger = logging.getLogger(__name__)

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
_ROW_GROUP = 256


def write_table(
    table: pa.Table,
    path: str,
    *,
    filesystem: fs.FileSystem | None = None,
    notes: Mapping[str, str] | None = None,
) -> int:
    """Write one Parquet file so that a reader sees either all of it or nothing.

    Args:
        table: Rows to write.
        path: Target inside `filesystem`; a file there is replaced.
        filesystem: Where to write; the local disk when left out.
        notes: Text entries for the file's footer.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: from the file system (full disk, no permission); the target is then as it was.
    """
    return put_bytes(encode_table(table, notes=notes), path, filesystem=filesystem)


def encode_table(table: pa.Table, *, notes: Mapping[str, str] | None = None) -> pa.Buffer:
    """The bytes of one Parquet file; the same rows and notes give the same bytes.

    Args:
        table: Rows to encode.
        notes: Text entries for the file's footer.
    """
    entries = {**(table.schema.metadata or {}), **{k.encode(): v.encode() for k, v in (notes or {}).items()}}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(entries),
        sink,
        # Images are compressed already: doing it again would only take time.
        compression={path: "none" if path == "image" else "zstd" for path in _leaves(table.schema)},
        use_dictionary=[name for name in _FEW_VALUES if name in table.column_names],
        write_statistics=[name for name in table.column_names if name not in ("image", "objects")],
        row_group_size=_ROW_GROUP,
    )
    return sink.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    """Column names as Parquet spells them."""
    return [
        f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name for column in schema
    ]


def read_notes(path: str, *, filesystem: fs.FileSystem | None = None) -> dict[str, str] | None:
    """Footer entries that `write_table` was given, or None when there is no whole Parquet file there."""
    filesystem, path = _unwrap(filesystem, path)
    if filesystem.get_file_info(path).type != fs.FileType.File:
        return None
    try:
        metadata = pq.read_schema(path, filesystem=filesystem).metadata or {}
    except pa.ArrowInvalid:
        logger.warning("%s is not a Parquet file: it will be written again", path)
        return None
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}


def _unwrap(filesystem: fs.FileSystem | None, path: str) -> tuple[fs.FileSystem, str]:
    """The file system underneath and the whole path: only the local disk needs a temporary file."""
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return _unwrap(filesystem.base_fs, f"{filesystem.base_path}{path}")
    return filesystem or fs.LocalFileSystem(), path


def put_bytes(data: pa.Buffer, path: str, *, filesystem: fs.FileSystem | None = None) -> int:
    """Write a file so that a reader sees either all of it or nothing; returns its size in bytes.

    Raises:
        OSError: from the file system; the target is then as it was.
    """
    filesystem, path = _unwrap(filesystem, path)
    size = len(data)
    if not isinstance(filesystem, fs.LocalFileSystem):
        # An object store shows an object only once it is whole.
        with filesystem.open_output_stream(path) as sink:
            sink.write(data)
        return size
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    # The leading dot hides a file left by a crash from every Parquet reader.
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return size
