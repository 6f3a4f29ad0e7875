import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.data.schema import SAMPLES, encode_table

ROW = {
    "image_id": "awe_1",
    "image": b"\x00\xff",
    "emotion": "awe",
    "scene": None,
    "objects": [],
    "split": "train",
    "source": "here",
    "sha256": "ab",
    "width": 3,
    "height": 2,
    "brightness": None,
    "colorfulness": 0.25,
}


def table(**metadata: str) -> pa.Table:
    return pa.Table.from_pylist([ROW], schema=SAMPLES).replace_schema_metadata(metadata)


def test_what_is_encoded_is_read_with_schema_and_metadata() -> None:
    back = pq.read_table(pa.BufferReader(encode_table(table(made_of="ä plan"))))
    assert back.to_pylist() == [ROW]
    assert back.schema.remove_metadata().equals(SAMPLES)
    assert back.schema.metadata == {b"made_of": "ä plan".encode()}


def test_same_rows_give_the_same_bytes() -> None:
    assert encode_table(table(k="v")).equals(encode_table(table(k="v")))
    assert not encode_table(table(k="v")).equals(encode_table(table(k="w")))


def test_images_are_not_compressed_again() -> None:
    columns = (
        pq.ParquetFile(pa.BufferReader(encode_table(table()))).metadata.row_group(0).to_dict()["columns"]
    )
    used = {column["path_in_schema"]: column["compression"] for column in columns}
    assert used.pop("image") == "UNCOMPRESSED"
    assert set(used.values()) == {"ZSTD"}
