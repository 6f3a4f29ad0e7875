"""Kubernetes quantities, such as `500m`, `28Gi` or `8`."""

import re

_SUFFIX = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")


def number(quantity: str | int | float) -> float:
    """The number of a quantity.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None or found[2] not in _SUFFIX:
        raise ValueError(f"expected a quantity such as 500m or 28Gi, got {quantity!r}")
    return float(found[1]) * _SUFFIX[found[2]]
