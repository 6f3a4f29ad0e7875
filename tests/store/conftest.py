"""Stores to test against: a folder, and a bucket of the S3 server that the environment names."""

import functools
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from uniemo_ray.store.filesystem import Store, open_store

_BUCKET = "uniemo-tests"


@pytest.fixture
def s3_uri(monkeypatch: pytest.MonkeyPatch) -> str:
    """An unused prefix on the server at UNIEMO_TEST_S3_ENDPOINT; AWS_* hold the keys as usual."""
    endpoint = os.environ.get("UNIEMO_TEST_S3_ENDPOINT")
    if not endpoint:
        pytest.skip("UNIEMO_TEST_S3_ENDPOINT is not set: no S3 server to test against")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    _make_bucket(endpoint)
    return f"s3://{_BUCKET}/{secrets.token_hex(6)}"


@functools.cache
def _make_bucket(endpoint: str) -> None:
    """Once for all tests: a client takes longer to make than most tests to run."""
    boto3.Session().client("s3", endpoint_url=endpoint).create_bucket(Bucket=_BUCKET)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.integration)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty run folder, once on disk and once on S3."""
    return str(tmp_path / "run") if request.param == "local" else str(request.getfixturevalue("s3_uri"))


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tiny file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
