"""S3's many errors, each as one clear line: what, where, what to do."""

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from uniemo_ray.store.errors import StoreError, StoreFullError

_UNREACHABLE = (boto.HTTPClientError, boto.ConnectionError)  # resolve, connect, read, proxy, TLS
_NO_KEYS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
_FORBIDDEN = {
    "AccessDenied",
    "403",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}
_REGION = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "507", "XMinioStorageFull"}
_SKEWED = {"RequestTimeTooSkewed"}


def is_missing(error: ClientError) -> bool:
    """Whether a key (not its bucket) is not there."""
    return _code(error) in ("NoSuchKey", "404")


def is_conflict(error: ClientError) -> bool:
    """Whether a conditional put found the key taken, or being taken."""
    return _code(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


def is_elsewhere(error: ClientError) -> bool:
    """Whether the bucket lies in another region than the one that the request was signed for."""
    return _code(error) in _REGION


def explain_s3(error: Exception, *, where: str, endpoint: str | None) -> StoreError:
    """The clear line for an error of boto3 at an object or bucket; `endpoint` None means AWS."""
    server = endpoint or "AWS"
    if isinstance(error, _NO_KEYS):
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or an instance role"
        return StoreError(f"no S3 credentials for {where}: {advice}")
    if isinstance(error, _UNREACHABLE):
        advice = "check the network and AWS_ENDPOINT_URL, then submit again: finished steps are kept"
        return StoreError(f"S3 server {server} is unreachable for {where}: {advice}")
    if isinstance(error, boto.NoRegionError):
        return StoreError(f"no region for {where}: set AWS_DEFAULT_REGION")
    code = _code(error) if isinstance(error, ClientError) else ""
    if code == "NoSuchBucket":
        return StoreError(
            f"the bucket of {where} does not exist at {server}: create it, or correct the address"
        )
    if code in _FORBIDDEN:
        return StoreError(
            f"no permission for {where} at {server} ({code}): check the access key and its rights"
        )
    if code in _REGION:
        own = _headers(error).get("x-amz-bucket-region", "the bucket's own")
        return StoreError(
            f"the bucket of {where} lies in another region ({code}): set AWS_DEFAULT_REGION to {own}"
        )
    if code in _FULL:
        return StoreFullError(
            f"storage full while writing {where} ({code}): free some space or raise the quota"
        )
    if code in _SKEWED:
        return StoreError(f"this machine's clock is wrong, {server} refuses {where} ({code}): set the clock")
    return StoreError(f"S3 failed for {where} at {server}: {' '.join(str(error).split())}")


def _code(error: BotoCoreError | ClientError | S3UploadFailedError) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _headers(error: Exception) -> dict[str, str]:
    """Error code of the server's answer."""
    headers: dict[str, str] = (
        getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    )
    return headers
