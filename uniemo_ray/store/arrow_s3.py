"""pyarrow's file system for S3 servers other than Amazon's."""

import os
from collections.abc import Callable
from typing import Any

from pyarrow.fs import S3FileSystem
from typing_extensions import override


def endpoint_to_keep(url: str, *, region: str | None) -> str | None:
    """The endpoint that both clients are given; None where each finds Amazon's public one by the region.

    Only boto3 knows all the ways to name another (environment, profile, FIPS, dual stack, interface endpoints
    of a private network), so what it has found is kept.
    """
    public = ["s3.amazonaws.com", f"s3.{region}.amazonaws.com", f"s3.{region}.amazonaws.com.cn"]
    return None if url.rstrip("/") in [f"https://{host}" for host in public] else url


class PlainS3FileSystem(S3FileSystem):  # type: ignore[misc]  # pyarrow has no types
    """Sends bodies without a trailing checksum, which many servers do not take, in every process.

    pyarrow's SDK takes this from the environment alone, and a worker that gets the file system from its
    driver does not get the driver's environment.
    """

    def __init__(self, **options: Any) -> None:
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        super().__init__(**options)

    @override
    def __reduce__(self) -> tuple[Callable[..., "PlainS3FileSystem"], tuple[dict[str, Any]]]:
        _, (options,) = super().__reduce__()
        return _rebuild, (options,)


def _rebuild(options: dict[str, Any]) -> PlainS3FileSystem:
    return PlainS3FileSystem(**options)
