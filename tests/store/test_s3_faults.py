"""A server that fails now and then, or for a minute: what is committed is committed once and whole."""

import os
import threading
import time

import boto3
import pyarrow as pa
import pytest

from tests.store.faulty_proxy import faulty_proxy
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards, seal_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SHARDS = 6
GONE_S = 60.0


def commit_all(uri: str) -> None:
    store = open_store(uri)
    for k in range(SHARDS):
        commit_shard(store, f"a/{k}", pa.table({"x": [k] * 1000}), plan_hash="p")


def assert_all(uri: str) -> None:
    store = open_store(uri)
    assert set(seal_manifest(store)) == set(committed(store)) == {f"a/{k}" for k in range(SHARDS)}
    assert read_shards(store)["x"].to_pylist() == [k for k in range(SHARDS) for _ in range(1000)]


@pytest.mark.parametrize("fault", ["500", "503", "reset", "silent"])
def test_every_third_request_fails(s3_uri: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("UNIEMO_S3_TIMEOUT_S", "2")
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        # a silent one costs the whole timeout: fewer of these
        every = 10 if fault == "silent" else 3
        proxy.fault = lambda number: fault if number % every == every - 1 else ""
        commit_all(s3_uri)
        assert_all(s3_uri)
        assert proxy.faults >= 2


def test_a_server_that_is_gone_for_a_minute(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    back = threading.Event()
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = open_store(s3_uri)
        commit_shard(store, "a/0", pa.table({"x": [0] * 1000}), plan_hash="p")
        proxy.fault = lambda _: "" if back.is_set() else "reset"
        threading.Timer(GONE_S, back.set).start()
        start = time.monotonic()
        for k in range(1, SHARDS):
            commit_shard(store, f"a/{k}", pa.table({"x": [k] * 1000}), plan_hash="p")
        assert time.monotonic() - start >= GONE_S
        assert_all(s3_uri)


def test_a_server_that_stays_away_is_one_clear_line(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.fault = lambda _: "503"
        with pytest.raises(StoreError, match=r"S3 failed for s3://uniemo-tests/.* \(SlowDown\)"):
            open_store(s3_uri)


def test_parts_of_a_killed_upload_are_dropped(s3_uri: str) -> None:
    store = open_store(s3_uri)
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    client = boto3.Session().client("s3")
    for key in (f"{prefix}/left", f"{prefix}-other/left"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 100)
    assert store.clear_unfinished(older_than_s=3600) == 0
    time.sleep(1)  # the server tells the time in whole seconds
    assert store.clear_unfinished(older_than_s=0) == 1
    left = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{prefix}-other/left"]
    client.abort_multipart_upload(Bucket=bucket, Key=left[0]["Key"], UploadId=left[0]["UploadId"])


def test_a_body_that_arrives_changed_is_refused(s3_uri: str) -> None:
    """What Content-MD5 is sent for: the server itself compares."""
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    client = boto3.Session().client("s3")
    with pytest.raises(client.exceptions.ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/a", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert open_store(s3_uri).list() == []
