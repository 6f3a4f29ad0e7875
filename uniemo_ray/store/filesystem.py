"""From a run's address to its store."""

import re
from pathlib import Path

from uniemo_ray.addresses import expand
from uniemo_ray.store.base import Store
from uniemo_ray.store.local import LocalStore

__all__ = ["Store", "open_store"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str | Path) -> Store:
    """The store at a local path (`runs/a`, `~/a`, `file:///a`) or at `s3://bucket/prefix`. Writes nothing.

    S3 takes its endpoint (`AWS_ENDPOINT_URL`), region and credentials from the usual chain, and the
    addressing style from `UNIEMO_S3_ADDRESSING` (`auto`, `path` or `virtual`). A request that is not answered
    for `UNIEMO_S3_TIMEOUT_S` (30) seconds is sent again. The bucket is asked for once, right here.

    Raises:
        ValueError: an address that is neither or is mangled, or a local path that is a file.
        StoreError: no such bucket, no permission, wrong region, endpoint unreachable.
    """
    uri = expand(uri)
    if uri.startswith("s3://"):
        return _open_s3(uri)
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise ValueError(f"expected a local path or s3://bucket/prefix, got {uri!r}")
    text = rest if separator else uri
    if not text.strip():
        raise ValueError(f"expected a local path or s3://bucket/prefix, got {uri!r}")
    root = Path(expand(text)).absolute()
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file: expected a folder, or a path where one can be made")
    return LocalStore(root)


def _open_s3(uri: str) -> Store:
    from uniemo_ray.store.s3 import S3Store  # boto3 takes a while to import and most runs are local

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    parts = prefix.strip("/").split("/")
    if not _BUCKET.fullmatch(bucket) or not all(part not in ("", ".", "..") for part in parts):
        raise ValueError(f"expected s3://bucket/prefix with a prefix for the run, got {uri!r}")
    store = S3Store.from_environment(bucket, "/".join(parts))
    store.check_bucket()
    return store
