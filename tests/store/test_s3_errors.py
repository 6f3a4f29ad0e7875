"""Each S3 error is one line that says what to do."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from uniemo_ray.store.s3_errors import explain_s3, is_conflict, is_missing


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "two\nlines"}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (client_error("NoSuchBucket"), "the bucket of s3://b/k does not exist at http://s: create it"),
        (client_error("AccessDenied"), "no permission for s3://b/k at http://s (AccessDenied)"),
        (client_error("SignatureDoesNotMatch"), "no permission for s3://b/k"),
        (
            client_error("PermanentRedirect"),
            "lies in another region (PermanentRedirect): set AWS_DEFAULT_REGION",
        ),
        (client_error("QuotaExceeded"), "storage full while writing s3://b/k"),
        (client_error("RequestTimeTooSkewed"), "clock is wrong"),
        (client_error("Strange"), "S3 failed for s3://b/k at http://s"),
        (EndpointConnectionError(endpoint_url="http://s"), "S3 server http://s is unreachable for s3://b/k"),
        (NoCredentialsError(), "no S3 credentials for s3://b/k: set AWS_ACCESS_KEY_ID"),
    ],
)
def test_one_clear_line(error: Exception, text: str) -> None:
    line = str(explain_s3(error, where="s3://b/k", endpoint="http://s"))
    assert text in line
    assert "\n" not in line


def test_conditions_are_told_apart() -> None:
    assert is_missing(client_error("NoSuchKey"))
    assert not is_missing(client_error("NoSuchBucket"))
    assert is_conflict(client_error("PreconditionFailed"))
    assert is_conflict(client_error("ConditionalRequestConflict"))
    assert not is_conflict(client_error("NoSuchKey"))
