"""A claim such as `multi_stage > none in accuracy`, and what the numbers say of it."""

import re
from typing import Literal, NamedTuple

from uniemo_ray.experiments.paired import Difference

_CLAIM = re.compile(r"([a-z0-9_]+) *([<>]) *([a-z0-9_]+) +in +([a-z0-9_]+)")
Verdict = Literal["supported", "contradicted", "not distinguishable"]


class Claim(NamedTuple):
    """One arm is above or below another in a metric."""

    left: str
    sign: Literal["<", ">"]
    right: str
    metric: str

    def __str__(self) -> str:
        """As it is written in a study."""
        return f"{self.left} {self.sign} {self.right} in {self.metric}"


def read_claim(text: str) -> Claim:
    """A claim from its text.

    Raises:
        ValueError: the text is none.
    """
    found = _CLAIM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a claim such as 'multi_stage > none in accuracy', got {text!r}")
    left, sign, right, metric = found.groups()
    if left == right:
        raise ValueError(f"claim {text!r} compares {left} with itself")
    return Claim(left, "<" if sign == "<" else ">", right, metric)


def judge(claim: Claim, difference: Difference) -> Verdict:
    """What an interval of `left` minus `right` says of the claim."""
    if difference.low <= 0 <= difference.high:
        return "not distinguishable"
    is_above = difference.low > 0
    return "supported" if is_above == (claim.sign == ">") else "contradicted"


def sentence(
    claim: Claim, difference: Difference, *, left: str, right: str, metric: str, factor: float, unit: str
) -> str:
    """One sentence that states the difference, its interval and the verdict.

    Args:
        claim: what was claimed.
        difference: of the two arms.
        left: name of the left arm for readers.
        right: name of the right arm for readers.
        metric: name of the metric for readers.
        factor: of the metric in print, 100 for percent.
        unit: of a printed difference, such as `points`, or empty.
    """
    mean, low, high = (factor * value for value in (difference.mean, difference.low, difference.high))
    digits = 1 if factor == 100 else 3
    basis = f"{difference.seeds} seeds"
    if difference.images > 1:
        basis += f", {difference.images:,} test images"
    verdict = judge(claim, difference)
    said = {
        "supported": "The claim is supported.",
        "contradicted": "The claim is contradicted.",
        "not distinguishable": f"The two are not distinguishable with {difference.seeds} seeds"
        + _needed(difference),
    }[verdict]
    return (
        f"{metric}, “{left}” minus “{right}”: {mean:+z.{digits}f}{unit} (95 % interval {low:+z.{digits}f} to "
        f"{high:+z.{digits}f}; {basis}). Claimed: {'above' if claim.sign == '>' else 'below'} 0. {said}"
    )


def _needed(difference: Difference) -> str:
    if difference.seeds_needed is not None:
        return f"; if the difference stays as it is, about {difference.seeds_needed} seeds would be needed."
    on = f" on these {difference.images:,} test images" if difference.images > 1 else ""
    return f", and at this difference no number of seeds up to 1,000 would tell them apart{on}."
