"""Content negotiation by the Accept header."""

import pytest

from uniemo_ray.service.api.accept import choose

OFFERED = ("application/json", "image/png", "image/webp")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("IMAGE/WEBP", "image/webp"),
        ("image/webp, image/png;q=0.5", "image/webp"),
        ("image/*, image/png;q=0", "image/webp"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0.2, image/*;q=0.3", "image/png"),
        ("text/html", None),
        ("image/png;q=high", None),
        ("*/*;q=0", None),
        (",,", "application/json"),
    ],
)
def test_the_best_offer(accept, expected):
    assert choose(accept, OFFERED) == expected
