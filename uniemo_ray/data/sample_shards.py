"""The file of a canonical shard: its samples, and in the footer what became of all its entries.

Rejected entries are no rows of the table that everything trains on. They are committed with it, in the
footer, so they are as atomic as the samples are.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniemo_ray.data.sample_reader import REJECTION
from uniemo_ray.data.samples import Rejected
from uniemo_ray.data.schema import SAMPLES, encode_table
from uniemo_ray.store.shard_format import FoundShard

_SUMMARY, _FINGERPRINT = b"uniemo.summary", b"uniemo.fingerprint"


class ShardSummary(NamedTuple):
    """What became of a shard's entries; plain JSON in the footer."""

    split: str
    name: str
    """File name, such as `part-00000.parquet`."""
    rows: int
    """Samples."""
    rejected: list[Rejected]
    emotions: dict[str, int]
    """Samples by label."""
    scenes: list[str]
    """Names that occur, sorted."""
    objects: list[str]
    with_scene: int
    """Samples that carry a scene."""
    with_object: int
    """Samples that carry an object."""


def read_summary(schema: pa.Schema) -> ShardSummary:
    """The summary in the metadata of a shard's schema.

    Raises:
        ValueError: there is none, or it is of another release.
    """
    try:
        summary = ShardSummary(**json.loads(schema.metadata[_SUMMARY]))
        return summary._replace(rejected=[Rejected(*values) for values in summary.rejected])
    except (TypeError, KeyError) as error:
        raise ValueError(f"no canonical shard of this release: {error!r}") from None


class SamplesFormat:
    """SAMPLES rows, images not compressed again, with summary and plan hash in the footer."""

    def finish(self, rows: pa.Table, name: str) -> pa.Table:
        """The samples among READ rows, with their summary as metadata.

        Args:
            rows: READ rows of one split.
            name: Name of the shard, such as `samples/train/part-00000`.
        """
        split, file = name.split("/")[-2:]
        is_sample = pc.is_null(rows["reason"])
        samples = rows.select(SAMPLES.names)
        if not pc.all(is_sample).as_py():
            samples = samples.filter(is_sample)
        # single chunks, because the bytes of a file depend on them
        samples = pa.Table.from_arrays(samples.combine_chunks().columns, schema=SAMPLES)
        refused = rows.select(("image_id", *REJECTION)).filter(pc.invert(is_sample)).to_pylist()
        rejected = [Rejected(**row, split=split) for row in refused]
        summary = _summarise(samples, split=split, file=f"{file}.parquet", rejected=rejected)
        return samples.replace_schema_metadata({_SUMMARY: json.dumps(summary._asdict())})

    def encode(self, table: pa.Table, plan_hash: str) -> bytes:
        """The bytes of finished samples."""
        metadata = {_FINGERPRINT: plan_hash.encode(), _SUMMARY: table.schema.metadata[_SUMMARY]}
        return bytes(encode_table(table.replace_schema_metadata(metadata)).to_pybytes())

    def decode(self, data: bytes) -> FoundShard:
        """The samples, if each image has the sha256 that its row says.

        Raises:
            ValueError: the bytes are no whole shard of samples.
        """
        table = pq.read_table(pa.BufferReader(data))
        summary = read_summary(table.schema)
        if fault := _misfit(table, summary):
            raise ValueError(fault)
        return FoundShard(table, table.schema.metadata.get(_FINGERPRINT, b"").decode())

    def failures(self, table: pa.Table) -> dict[str, int]:
        """Rejected entries by reason."""
        return dict(Counter(item.reason for item in read_summary(table.schema).rejected))

    def input_rows(self, rows: int, failed: Mapping[str, int]) -> int:
        """Samples and rejected entries."""
        return rows + sum(failed.values())


def _summarise(samples: pa.Table, *, split: str, file: str, rejected: list[Rejected]) -> ShardSummary:
    scenes, objects = samples["scene"].to_pylist(), samples["objects"].to_pylist()
    return ShardSummary(
        split=split,
        name=file,
        rows=samples.num_rows,
        rejected=rejected,
        emotions=Counter(samples["emotion"].to_pylist()),
        scenes=sorted({name for name in scenes if name}),
        objects=sorted({name for names in objects for name in names}),
        with_scene=sum(name is not None for name in scenes),
        with_object=sum(bool(names) for names in objects),
    )


def _misfit(table: pa.Table, summary: ShardSummary) -> str:
    """What is wrong with a shard that could be read; empty when all fits."""
    if table.num_rows != summary.rows:
        return f"{table.num_rows} rows instead of {summary.rows}"
    for image, digest in zip(table["image"], table["sha256"], strict=True):
        if hashlib.sha256(image.as_buffer()).hexdigest() != digest.as_py():
            return f"an image with another sha256 than {digest}"
    return ""
