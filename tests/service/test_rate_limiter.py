"""Token buckets and open requests of one endpoint."""

import contextlib

import pytest

from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.api.rate_limiter import RateLimiter
from uniemo_ray.service.settings import Limits


def refusal(rate_limiter: RateLimiter, caller: str) -> ProblemError:
    with pytest.raises(ProblemError) as error, rate_limiter.request(caller):
        raise AssertionError
    return error.value


def test_a_bucket_refills_steadily():
    now = [0.0]
    rate_limiter = RateLimiter(Limits(requests_per_minute=60), clock=lambda: now[0])
    for _ in range(15):  # a quarter at once
        with rate_limiter.request("ann"):
            pass
    error = refusal(rate_limiter, "ann")
    assert (error.status_code, error.retry_after_s) == (429, 1.0)
    now[0] = 1.0
    with rate_limiter.request("ann"):
        pass
    assert refusal(rate_limiter, "ann").status_code == 429
    with rate_limiter.request("bob"):
        pass


def test_open_requests_are_limited_per_caller_and_in_all():
    rate_limiter = RateLimiter(Limits(concurrent_requests=2, active_requests=3))
    with rate_limiter.request("ann"), rate_limiter.request("ann"):
        assert refusal(rate_limiter, "ann").status_code == 429
        with rate_limiter.request("bob"):
            assert rate_limiter.active == 3
            error = refusal(rate_limiter, "bob")
            assert error.status_code == 503
            assert error.retry_after_s is not None
    assert rate_limiter.active == 0


def test_a_failed_request_is_closed():
    rate_limiter = RateLimiter(Limits())
    with pytest.raises(RuntimeError), rate_limiter.request("ann"):
        raise RuntimeError
    assert rate_limiter.active == 0


def test_only_so_many_callers_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("uniemo_ray.service.api.rate_limiter.MOST_BUCKETS", 3)
    rate_limiter = RateLimiter(Limits(requests_per_minute=4), clock=lambda: 0.0)
    for caller in "abac":
        with contextlib.suppress(ProblemError), rate_limiter.request(caller):
            pass
    assert refusal(rate_limiter, "a").status_code == 429
    with rate_limiter.request("d"):  # b has been silent for longest
        pass
    with rate_limiter.request("b"):
        assert rate_limiter.active == 1
    assert len(rate_limiter._buckets) == 3
    assert not rate_limiter._open
