"""The chosen images as committed shards of a plan: which images become one shard of training samples."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import pyarrow as pa

from uniemo_ray.feedback.mixing import Kept
from uniemo_ray.store.base import Store
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.shards import ShardEntry, commit_shard, drop_shards, seal_manifest

MIX_PLAN_FOLDER, SYNTHETIC_FOLDER = "mix-plan", "synthetic"
ROWS = 1024
"""Rows from which on a shard of samples is full: every epoch opens each of them."""
BYTES = 128 << 20
"""The same in bytes of pictures."""
MIX_PLAN = pa.schema(
    [
        ("image_id", pa.string()),
        ("shard", pa.string()),  # of the generated image
        ("shard_bytes", pa.int64()),
        ("shard_sha256", pa.string()),
    ]
)
"""One row per chosen image."""


def commit_mix_plan(
    chosen: Sequence[Kept],
    images: Mapping[str, ShardEntry],
    store: Store,
    *,
    plan: str,
    rows: int = ROWS,
    size: int = BYTES,
) -> None:
    """Commit `mix-plan/part-NNNNN`, and drop samples and plans of an earlier release or of another choice.

    Args:
        chosen: by shard and id.
        images: entries of the shards of generated images.
        store: of the mixing step.
        plan: fingerprint of the step.
        rows: from which on a shard is full.
        size: the same in bytes.
    """
    tables = [_rows(group, images) for group in group_chosen(chosen, images, rows=rows, size=size)]
    names = [f"part-{number:05d}" for number in range(len(tables))]
    hashes = [fingerprint([plan, table.to_pylist()]) for table in tables]
    seal_manifest(store)
    for folder in (MIX_PLAN_FOLDER, SYNTHETIC_FOLDER):
        keep = {f"{folder}/{name}": known for name, known in zip(names, hashes, strict=True)}
        drop_shards(store, folder, keep=keep)
    for name, known, table in zip(names, hashes, tables, strict=True):
        commit_shard(store, f"{MIX_PLAN_FOLDER}/{name}", table, plan_hash=known)


def group_chosen(
    chosen: Sequence[Kept], images: Mapping[str, ShardEntry], *, rows: int, size: int
) -> list[list[Kept]]:
    """Chosen images of whole image shards together, up to so many rows or bytes; at least one group."""
    groups: list[list[Kept]] = [[]]
    held = 0.0
    for shard, own in _by_shard(chosen):
        if len(groups[-1]) >= rows or held >= size:
            groups.append([])
            held = 0.0
        groups[-1] += own
        held += len(own) * images[shard].bytes / max(images[shard].rows, 1)
    return groups


def _by_shard(chosen: Sequence[Kept]) -> Iterator[tuple[str, list[Kept]]]:
    for shard, own in groupby(chosen, key=lambda image: image.shard):
        yield shard, list(own)


def _rows(chosen: Sequence[Kept], images: Mapping[str, ShardEntry]) -> pa.Table:
    entries = [images[image.shard] for image in chosen]
    values = {
        "image_id": [image.image_id for image in chosen],
        "shard": [image.shard for image in chosen],
        "shard_bytes": [entry.bytes for entry in entries],
        "shard_sha256": [entry.sha256 for entry in entries],
    }
    return pa.table(values, schema=MIX_PLAN)
