"""A store below a prefix of an S3 bucket: boto3 for control, pyarrow's S3 for bulk."""

import base64
import functools
import hashlib
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem
from typing_extensions import override

from uniemo_ray.store.arrow_s3 import PlainS3FileSystem, endpoint_to_keep
from uniemo_ray.store.base import Store, check_key
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.s3_errors import explain_s3, is_conflict, is_elsewhere, is_missing
from uniemo_ray.store.s3_retries import pause, retry_or_none

_STYLES = ("auto", "path", "virtual")
_LONGEST_LINK_S = 7 * 24 * 3600
"""S3 signs no longer ones."""
_CONFLICT_TRIES = 8
_READ_TRIES = 6
_ARROW_ATTEMPTS = 16
"""Attempts of pyarrow's client, which counts them instead of the time."""
_TIMEOUT_VARIABLE, _TIMEOUT_S = "UNIEMO_S3_TIMEOUT_S", 30.0


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
        self._asks_environment = False

    @classmethod
    def from_environment(cls, bucket: str, prefix: str) -> "S3Store":
        """The store with endpoint and region of boto3's usual chain (environment, profile, instance)."""
        addressing = os.environ.get("UNIEMO_S3_ADDRESSING", "auto")
        store = cls(bucket, prefix, endpoint=None, region=None, addressing=addressing)
        store._asks_environment = True
        with store._clear_errors():
            meta = store._client.meta
        endpoint = endpoint_to_keep(meta.endpoint_url, region=meta.region_name)
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
        client = self._connect(attempts=2, timeout_s=5)
        client.meta.events.register("needs-retry.s3.ListObjectsV2", _refuse_to_follow)
        with self._clear_errors():
            client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)

    @override
    def read_bytes(self, key: str) -> bytes:
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        with self._clear_errors(key):
            for attempt in range(1, _READ_TRIES):
                # boto3 tries a request again, but not the rest of an answer that broke off
                body = self._client.get_object(**where)["Body"]
                with suppress(HTTPClientError, IncompleteReadError):
                    return bytes(body.read())
                time.sleep(pause(attempt))
            return bytes(self._client.get_object(**where)["Body"].read())

    @override
    def write_bytes(self, key: str, data: bytes) -> None:
        with self._clear_errors(key):
            where = {"Bucket": self.bucket, "Key": self._key(key)}
            self._client.put_object(**where, Body=data, ContentMD5=_md5(data))

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        # A put whose answer is lost is sent again and then finds itself: the writer's mark tells that apart.
        writer = secrets.token_hex(8)
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        body = {"Body": data, "ContentMD5": _md5(data)}  # the server refuses what arrives otherwise
        with self._clear_errors(key):
            for attempt in range(1, _CONFLICT_TRIES + 1):
                try:
                    self._client.put_object(**where, **body, IfNoneMatch="*", Metadata={"writer": writer})
                    return True
                except ClientError as error:
                    if not is_conflict(error):
                        raise
                found = self._writer(where)
                if found is not None:
                    return found == writer
                time.sleep(pause(attempt))  # two puts at once, neither decided yet
        raise self._contested(key)

    @override
    def replace(self, key: str, data: bytes, *, expected: bytes) -> bool:
        writer = secrets.token_hex(8)
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        body = {"Body": data, "ContentMD5": _md5(data), "Metadata": {"writer": writer}}
        with self._clear_errors(key):
            for attempt in range(1, _CONFLICT_TRIES + 1):
                try:
                    found = self._client.get_object(**where)
                    if found["Metadata"].get("writer") == writer:
                        return True  # sent again after a lost answer, as in `put_if_absent`
                    if found["Body"].read() != expected:
                        return False
                    # Ceph and others compare with the tag as it is without its quotes
                    tag = found["ETag"] if attempt % 2 else found["ETag"].strip('"')
                    self._client.put_object(**where, **body, IfMatch=tag)
                    return True
                except ClientError as error:
                    if is_missing(error):
                        return False
                    if not is_conflict(error):
                        raise
                time.sleep(pause(attempt))
        raise self._contested(key)

    @override
    def put_file(self, path: Path, key: str) -> None:
        # Not pyarrow's output stream: that one completes its upload when the writer fails half-way.
        with self._clear_errors(key):
            self._client.upload_file(str(path), self.bucket, self._key(key))

    @override
    def copy(self, source: str, key: str) -> None:
        with self._clear_errors(source):
            self._client.copy({"Bucket": self.bucket, "Key": self._key(source)}, self.bucket, self._key(key))

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
    def iterate_tagged(self, folder: str = "") -> Iterator[tuple[str, str]]:
        base = f"{self.prefix}/"
        prefix = f"{self._key(folder)}/" if folder else base
        with self._clear_errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                # Consoles and file browsers mark "folders" by empty objects that end in a slash.
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield item["Key"].removeprefix(base), item["ETag"]

    @override
    def delete(self, key: str) -> None:
        with self._clear_errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    @override
    def clear_unfinished(self, *, older_than_s: float) -> int:
        # A process that is killed while it sends a large file in parts leaves them: unseen, but paid for.
        where, count = {"Bucket": self.bucket, "Prefix": f"{self.prefix}/"}, 0
        with self._clear_errors():
            for page in self._client.get_paginator("list_multipart_uploads").paginate(**where):
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for upload in page.get("Uploads", ()):
                    if (now - upload["Initiated"]).total_seconds() >= older_than_s:
                        upload_id = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                        self._client.abort_multipart_upload(Bucket=self.bucket, **upload_id)
                        count += 1
        return count

    @override
    def sub(self, folder: str) -> "S3Store":
        store = S3Store(
            self.bucket,
            self._key(folder),
            endpoint=self.endpoint,
            region=self.region,
            addressing=self.addressing,
        )
        store._made_client, store.fence = self._made_client, self.fence
        return store

    @override
    def local_path_or_none(self, key: str = "") -> None:
        return None

    @override
    def presigned_url(self, key: str, *, ttl_s: float) -> str:
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        seconds = min(int(ttl_s), _LONGEST_LINK_S)
        with self._clear_errors(key):
            url: str = self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)
        return url

    @override
    def arrow(self) -> tuple[FileSystem, str]:
        options: dict[str, Any] = {
            "force_virtual_addressing": self.addressing == "virtual",
            "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=_ARROW_ATTEMPTS),
            "connect_timeout": 10,
            "request_timeout": _timeout_s(),
        }
        if self.region:
            options["region"] = self.region
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            options |= {"endpoint_override": host, "scheme": scheme}
        with self._clear_errors():
            credentials = _session().get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials else None
        # Only lasting keys are handed over: pyarrow's own chain can renew the others, a copy cannot.
        if frozen is not None and frozen.token is None:
            options |= {"access_key": frozen.access_key, "secret_key": frozen.secret_key}
        kind = PlainS3FileSystem if self.endpoint else S3FileSystem
        return kind(**options), f"{self.bucket}/{self.prefix}"

    @property
    def _client(self) -> Any:
        if self._made_client is None:
            self._made_client = self._connect(attempts=1, timeout_s=_timeout_s())
            self._made_client.meta.events.register_first("needs-retry.s3", retry_or_none)
        return self._made_client

    def _connect(self, *, attempts: int, timeout_s: float) -> Any:
        config = Config(
            signature_version="s3v4",  # boto3 signs links of older regions with a form that others refuse
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=min(timeout_s, 10),
            read_timeout=timeout_s,
            max_pool_connections=32,
            # Decided once, where the store is opened: a worker's environment may say something else.
            ignore_configured_endpoint_urls=not self._asks_environment,
            s3={"addressing_style": self.addressing},
            # Other servers than AWS do not know the newer trailing checksums; content is hashed by us.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return _session().client("s3", endpoint_url=self.endpoint, region_name=self.region, config=config)

    def _contested(self, key: str) -> StoreError:
        return StoreError(f"{self.uri}/{key} stays contested after {_CONFLICT_TRIES} tries: submit again")

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


def _refuse_to_follow(response: tuple[Any, dict[str, Any]] | None, **_: object) -> None:
    """boto3 follows a bucket into its region and says nothing; pyarrow, which reads in bulk, fails there."""
    if response is not None:
        error = ClientError(response[1], "ListObjectsV2")
        if is_elsewhere(error):
            raise error


def _timeout_s() -> float:
    """How long a server may be silent before a request is sent again."""
    text = os.environ.get(_TIMEOUT_VARIABLE, str(_TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{_TIMEOUT_VARIABLE} must be a number of seconds above 0, got {text!r}")
    return seconds


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@functools.cache
def _service_models() -> Any:
    return botocore.session.Session().get_component("data_loader")


def _session() -> boto3.Session:
    """A fresh session, as credentials may have changed, on the models of S3 that were parsed before.

    Parsing them takes ten times as long as everything else, and each store makes clients of its own.
    """
    session = botocore.session.Session()
    session.register_component("data_loader", _service_models())
    return boto3.Session(botocore_session=session)
