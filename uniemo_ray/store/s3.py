"""A store below a prefix of an S3 bucket: boto3 for control, pyarrow's S3 for bulk."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow.fs import FileSystem, S3FileSystem
from typing_extensions import override

from uniemo_ray.store.base import Store, check_key
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.s3_errors import explain_s3, is_conflict, is_missing

_STYLES = ("auto", "path", "virtual")
_CONFLICT_TRIES = 8


class S3Store(Store):
    """Objects below `s3://bucket/prefix`. Pickled, it keeps the address and no credentials."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint: str | None, region: str | None, addressing: str
    ) -> None:
        if addressing not in _STYLES:
            raise ValueError(f"UNIEMO_S3_ADDRESSING must be one of {', '.join(_STYLES)}, got {addressing!r}")
        self.bucket, self.prefix = bucket, prefix
        self.endpoint, self.region, self.addressing = endpoint, region, addressing
        self._made_client: Any = None

    @classmethod
    def from_environment(cls, bucket: str, prefix: str) -> "S3Store":
        """The store with endpoint and region of boto3's usual chain (environment, profile, instance)."""
        addressing = os.environ.get("UNIEMO_S3_ADDRESSING", "auto")
        store = cls(bucket, prefix, endpoint=None, region=None, addressing=addressing)
        with store._clear_errors():
            meta = store._client.meta
        is_aws = ".amazonaws.com" in meta.endpoint_url
        endpoint = None if is_aws else meta.endpoint_url
        return cls(bucket, prefix, endpoint=endpoint, region=meta.region_name, addressing=addressing)

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made_client": None}  # a client holds sockets and locks

    @property
    @override
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def check_bucket(self) -> None:
        """Ask for one key with few retries, so that a wrong address or key is known within seconds."""
        with self._clear_errors():
            self._connect(attempts=2, timeout_s=5).list_objects_v2(
                Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1
            )

    @override
    def read_bytes(self, key: str) -> bytes:
        with self._clear_errors(key):
            data: bytes = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        return data

    @override
    def write_bytes(self, key: str, data: bytes) -> None:
        with self._clear_errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        # A put whose answer is lost is sent again and then finds itself: the writer's mark tells that apart.
        writer = secrets.token_hex(8)
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        with self._clear_errors(key):
            for attempt in range(_CONFLICT_TRIES):
                try:
                    self._client.put_object(**where, Body=data, IfNoneMatch="*", Metadata={"writer": writer})
                    return True
                except ClientError as error:
                    if not is_conflict(error):
                        raise
                found = self._writer(where)
                if found is not None:
                    return found == writer
                time.sleep(0.05 * 2**attempt)  # two puts at once, neither decided yet
        raise StoreError(f"{self.uri}/{key} stays contested after {_CONFLICT_TRIES} tries: submit again")

    @override
    def put_file(self, path: Path, key: str) -> None:
        # Not pyarrow's output stream: that one completes its upload when the writer fails half-way.
        with self._clear_errors(key):
            self._client.upload_file(str(path), self.bucket, self._key(key))

    @override
    def exists(self, key: str) -> bool:
        with self._clear_errors(key):
            try:
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
            except ClientError as error:
                if is_missing(error):
                    return False
                raise
        return True

    @override
    def iterate(self, folder: str = "") -> Iterator[str]:
        base = f"{self.prefix}/"
        prefix = f"{self._key(folder)}/" if folder else base
        with self._clear_errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                # Consoles and file browsers mark "folders" by empty objects that end in a slash.
                keys = (item["Key"] for item in page.get("Contents", ()))
                yield from (key.removeprefix(base) for key in keys if not key.endswith("/"))

    @override
    def delete(self, key: str) -> None:
        with self._clear_errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    @override
    def sub(self, folder: str) -> "S3Store":
        store = S3Store(
            self.bucket,
            self._key(folder),
            endpoint=self.endpoint,
            region=self.region,
            addressing=self.addressing,
        )
        store._made_client = self._made_client
        return store

    @override
    def local_path_or_none(self, key: str = "") -> None:
        return None

    @override
    def presigned_url(self, key: str, *, ttl_s: float) -> str:
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        with self._clear_errors(key):
            url: str = self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=int(ttl_s))
        return url

    @override
    def arrow(self) -> tuple[FileSystem, str]:
        options: dict[str, Any] = {"force_virtual_addressing": self.addressing == "virtual"}
        if self.region:
            options["region"] = self.region
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            options |= {"endpoint_override": host, "scheme": scheme}
            # As in `_connect`; pyarrow's SDK takes this from the environment alone.
            os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        with self._clear_errors():
            credentials = boto3.Session().get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials else None
        # Only lasting keys are handed over: pyarrow's own chain can renew the others, a copy cannot.
        if frozen is not None and frozen.token is None:
            options |= {"access_key": frozen.access_key, "secret_key": frozen.secret_key}
        return S3FileSystem(**options), f"{self.bucket}/{self.prefix}"

    @property
    def _client(self) -> Any:
        if self._made_client is None:
            self._made_client = self._connect(attempts=10, timeout_s=60)
        return self._made_client

    def _connect(self, *, attempts: int, timeout_s: float) -> Any:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},  # exponential, with jitter
            connect_timeout=min(timeout_s, 10),
            read_timeout=timeout_s,
            max_pool_connections=32,
            s3={"addressing_style": self.addressing},
            # Other servers than AWS do not know the newer trailing checksums; content is hashed by us.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.Session().client(
            "s3", endpoint_url=self.endpoint, region_name=self.region, config=config
        )

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}"

    def _writer(self, where: dict[str, str]) -> str | None:
        try:
            found: str = self._client.head_object(**where)["Metadata"].get("writer", "")
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return found

    @contextmanager
    def _clear_errors(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            if isinstance(error, ClientError) and is_missing(error):
                raise FileNotFoundError(f"{self.uri}/{key} does not exist") from None
            raise explain_s3(error, where=f"{self.uri}/{key}".rstrip("/"), endpoint=self.endpoint) from error
