"""Token buckets and open requests of one endpoint."""

import pytest

from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.api.rates import Rates
from uniemo_ray.service.settings import Limits


def refusal(rates: Rates, caller: str) -> ProblemError:
    with pytest.raises(ProblemError) as error, rates.request(caller):
        raise AssertionError
    return error.value


def test_a_bucket_refills_steadily():
    now = [0.0]
    rates = Rates(Limits(requests_per_minute=60), clock=lambda: now[0])
    for _ in range(15):  # a quarter at once
        with rates.request("ann"):
            pass
    error = refusal(rates, "ann")
    assert (error.status_code, error.retry_after_s) == (429, 1.0)
    now[0] = 1.0
    with rates.request("ann"):
        pass
    assert refusal(rates, "ann").status_code == 429
    with rates.request("bob"):
        pass


def test_open_requests_are_limited_per_caller_and_in_all():
    rates = Rates(Limits(concurrent_requests=2, active_requests=3))
    with rates.request("ann"), rates.request("ann"):
        assert refusal(rates, "ann").status_code == 429
        with rates.request("bob"):
            assert rates.active == 3
            error = refusal(rates, "bob")
            assert error.status_code == 503
            assert error.retry_after_s is not None
    assert rates.active == 0


def test_a_failed_request_is_closed():
    rates = Rates(Limits())
    with pytest.raises(RuntimeError), rates.request("ann"):
        raise RuntimeError
    assert rates.active == 0
