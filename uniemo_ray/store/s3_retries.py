"""When a request to S3 is sent again: with full jitter, for two minutes.

botocore's own modes do not fit: `standard` lets all threads of a client share one small budget of retries,
and the pauses of `legacy` grow without end.
"""

import random
import time
from typing import Any

from botocore import exceptions as boto

RETRY_S = 120.0
"""A server may be gone for a minute."""
_SHORTEST_S, _LONGEST_S = 0.1, 8.0
_STATUS = {429, 500, 502, 503, 504}
_CODES = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "InternalError",
}


def pause(attempt: int) -> float:
    """Seconds before the next of several attempts, counted from 1: nobody knows when the others come."""
    return random.uniform(0, min(_LONGEST_S, _SHORTEST_S * 2.0**attempt))


def retry_or_none(
    response: tuple[Any, dict[str, Any]] | None,
    attempts: int,
    caught_exception: Exception | None,
    request_dict: dict[str, Any],
    **_: object,
) -> float | None:
    """Seconds until a request is sent again, or None: a handler of botocore's event `needs-retry`."""
    if not _will_pass(response, caught_exception):
        return None
    began = request_dict["context"].setdefault("uniemo_ray.first_failure", time.monotonic())
    left = RETRY_S - (time.monotonic() - began)
    return pause(attempts) if left > 0 else None


def _will_pass(response: tuple[Any, dict[str, Any]] | None, error: Exception | None) -> bool:
    """Whether it is the server's or the network's fault of the moment."""
    if error is not None:
        return isinstance(error, (boto.HTTPClientError, boto.ConnectionError))
    if response is None:
        return False
    http, parsed = response
    return http.status_code in _STATUS or parsed.get("Error", {}).get("Code") in _CODES
