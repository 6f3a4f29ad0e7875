"""Claims: how they are read, and what an interval says of them."""

import pytest

from uniemo_ray.experiments.claims import judge, read_claim, sentence
from uniemo_ray.experiments.paired import Difference


def difference(low: float, high: float, *, needed: int | None = None, images: int = 1000) -> Difference:
    return Difference((low + high) / 2, low, high, 5, images, needed)


@pytest.mark.parametrize(
    "text", ["a > b", "a > b in", "a = b in accuracy", "a > a in accuracy", "A > b in x"]
)
def test_what_is_no_claim_is_refused(text):
    with pytest.raises(ValueError, match=r"claim"):
        read_claim(text)


@pytest.mark.parametrize(
    ("text", "low", "high", "verdict"),
    [
        ("a > b in accuracy", 0.01, 0.02, "supported"),
        ("a > b in accuracy", -0.02, -0.01, "contradicted"),
        ("a > b in accuracy", -0.01, 0.02, "not distinguishable"),
        ("a < b in fid", -0.02, -0.01, "supported"),
        ("a < b in fid", 0.01, 0.02, "contradicted"),
        ("a < b in fid", 0.0, 0.0, "not distinguishable"),
    ],
)
def test_verdicts(text, low, high, verdict):
    claim = read_claim(text)
    assert str(claim) == text
    assert judge(claim, difference(low, high)) == verdict


def said(claim: str, found: Difference, **more: object) -> str:
    names = {"left": "A", "right": "B", "metric": "Accuracy", "factor": 100.0, "unit": " points"}
    return sentence(read_claim(claim), found, **(names | more))  # type: ignore[arg-type]


def test_the_sentence_says_all_of_it():
    assert said("a > b in accuracy", difference(0.01, 0.02)) == (
        "Accuracy, “A” minus “B”: +1.5 points (95 % interval +1.0 to +2.0; 5 seeds, 1,000 test images). "
        "Claimed: above 0. The claim is supported."
    )


def test_the_sentence_says_how_many_seeds_would_do():
    assert "about 14 seeds would be needed" in said("a > b in x", difference(-0.01, 0.02, needed=14))
    none = said("a > b in x", difference(-0.01, 0.02))
    assert "no number of seeds up to 1,000 would tell them apart on these 1,000 test images" in none
    assert "test images" not in said("a > b in x", difference(-0.01, 0.02, images=1))
