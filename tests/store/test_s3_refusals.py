"""What a real server refuses is one clear line on the terminal, before anything starts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.store.faulty_proxy import faulty_proxy
from tests.store.skewed_clock import skewed_clock
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.run import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
DENIED = "uniemo-tests-denied"


def line(uri: str, **environment: str) -> str:
    """What `uniemo store verify` says about an address."""
    command = [sys.executable, "-m", "uniemo_ray.cli", "store", "verify", uri]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 2, "1 says that something is damaged"
    assert len(lines) == 1, lines
    return lines[0]


def test_no_bucket(s3_uri: str) -> None:
    said = line("s3://uniemo-tests-nowhere/run")
    assert "the bucket of s3://uniemo-tests-nowhere/run does not exist at http://127.0.0.1" in said
    assert "create it, or correct the address" in said


@pytest.mark.parametrize(
    ("name", "code"),
    [("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")],
)
def test_a_wrong_key(s3_uri: str, name: str, code: str) -> None:
    assert f"no permission for {s3_uri} at " in (said := line(s3_uri, **{name: "WRONG"}))
    assert f"({code}): check the access key and its rights" in said


def test_no_keys_at_all(s3_uri: str, tmp_path: Path) -> None:
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(tmp_path / "none")}
    nothing |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    said = line(s3_uri, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", **nothing)
    assert f"no S3 credentials for {s3_uri}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


@pytest.fixture
def denied(s3_uri: str) -> Iterator[str]:
    """A bucket in which one may do nothing but list."""
    client = boto3.Session().client("s3")
    client.create_bucket(Bucket=DENIED)
    rule = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject", "s3:GetObject"]}
    rule["Resource"] = [f"arn:aws:s3:::{DENIED}/*"]
    client.put_bucket_policy(Bucket=DENIED, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    yield f"s3://{DENIED}/run"
    client.delete_bucket_policy(Bucket=DENIED)
    client.delete_bucket(Bucket=DENIED)


def test_no_right_to_write(denied: str) -> None:
    with pytest.raises(StoreError) as refused:
        RunFolder.open(denied, {})
    assert f"no permission for {denied}/" in (said := str(refused.value))
    assert said.endswith("(AccessDenied): check the access key and its rights")


@pytest.mark.parametrize("status", [400, 301])
def test_another_region(s3_uri: str, status: int) -> None:
    """AWS's own two answers: Ceph does not look at the region, so a proxy does."""
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        proxy.region, proxy.region_code = "eu-central-1", status
        said = line(s3_uri, AWS_ENDPOINT_URL=proxy.endpoint, AWS_DEFAULT_REGION="us-west-2")
        assert f"the bucket of {s3_uri} lies in another region" in said
        assert said.endswith("set AWS_DEFAULT_REGION to eu-central-1")
        right = line(s3_uri, AWS_ENDPOINT_URL=proxy.endpoint, AWS_DEFAULT_REGION="eu-central-1")
        assert f"there is no run folder {s3_uri}" in right


def test_a_clock_that_is_an_hour_off(s3_uri: str, tmp_path: Path) -> None:
    said = line(s3_uri, **skewed_clock(tmp_path, 3600))
    assert "this machine's clock is wrong" in said
    assert "(RequestTimeTooSkewed): set the clock" in said


def test_nobody_there(s3_uri: str) -> None:
    said = line(s3_uri, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert f"S3 server http://127.0.0.1:9 is unreachable for {s3_uri}: check the network" in said
