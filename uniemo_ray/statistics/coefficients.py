"""Emotional correlation coefficients (eq. 5) as sums that merge."""

# B batch, C emotions, A attributes

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import ALPHA, coefficients_schema

Key = tuple[str, str]
"""(kind, attribute name)."""


@dataclass(frozen=True, eq=False)
class AttributeSum:
    """M_j and the sum over images k that carry attribute j of p(e | I_k)."""

    count: int
    probability: NDArray[np.float64]
    """(C,)."""

    def __add__(self, other: "AttributeSum") -> "AttributeSum":
        """Sum over the images of both."""
        return AttributeSum(self.count + other.count, self.probability + other.probability)


@dataclass
class CoefficientSums:
    """Accumulates eq. 5; partial sums over any split of the images merge to the same table."""

    sums: dict[Key, AttributeSum] = field(default_factory=dict)
    labels: tuple[str, ...] = EMOTIONS
    """The C emotions, in the order of every row of probabilities."""

    def update(
        self, probabilities: ArrayLike, scenes: Sequence[str | None], objects: Sequence[Iterable[str] | None]
    ) -> None:
        """Add a batch of training images, in place.

        Args:
            probabilities: (B, C) softmax outputs of the emotion classifier.
            scenes: B names, None without a scene.
            objects: B lists of names, empty or None without an object; a repeated name counts once.

        Raises:
            ValueError: for another shape, unequal lengths or a non-finite probability.
        """
        batch = np.asarray(probabilities, dtype=np.float64)
        if batch.shape != (len(scenes), len(self.labels)) or len(objects) != len(scenes):
            raise ValueError(
                f"expected probabilities ({len(scenes)}, {len(self.labels)}) and as many object lists, "
                f"got {batch.shape} and {len(objects)} lists for {len(scenes)} scenes"
            )
        if not np.isfinite(batch).all():
            raise ValueError("an emotion probability is not finite: retrain the emotion classifier")
        for row, scene, names in zip(batch, scenes, objects, strict=True):
            if scene is not None:
                self._add(("scene", str(scene)), AttributeSum(1, row))
            for name in set(names if names is not None else ()):
                self._add(("object", str(name)), AttributeSum(1, row))

    def _add(self, key: Key, part: AttributeSum) -> None:
        self.sums[key] = self.sums[key] + part if key in self.sums else part

    def merge(self, other: "CoefficientSums") -> "CoefficientSums":
        """Sums over the images of both, as a new object."""
        merged = CoefficientSums(dict(self.sums), self.labels)
        for key, part in other.sums.items():
            merged._add(key, part)
        return merged

    def table(self) -> pa.Table:
        """`coefficients_schema` rows sorted by kind and name; `alpha_e` is the mean of p(e | I_k) (eq. 5)."""
        rows, schema = [], coefficients_schema(self.labels)
        for (kind, name), part in sorted(self.sums.items()):
            alpha = dict(zip(schema.names[3:], part.probability / part.count, strict=True))
            rows.append({"attribute": name, "kind": kind, "count": part.count, **alpha})
        return pa.Table.from_pylist(rows, schema=schema)


def coefficients_by_key(table: pa.Table) -> dict[Key, NDArray[np.float64]]:
    """(C,) coefficients of each (kind, attribute) of a coefficients table."""
    alphas = [name for name in table.column_names if name.startswith(ALPHA)]
    values = np.stack([table[name].to_numpy() for name in alphas], axis=1)
    keys = zip(table["kind"].to_pylist(), table["attribute"].to_pylist(), strict=True)
    return dict(zip(keys, values, strict=True))


def mean_absolute_error(table: pa.Table, exact: Mapping[Key, NDArray[np.float64]]) -> float:
    """Mean |alpha - exact| over all attributes of `exact` and all emotions; a missing row counts as 0.

    Raises:
        ValueError: when the table names an attribute that `exact` does not know, or `exact` is empty.
    """
    found = coefficients_by_key(table)
    if unknown := sorted(set(found) - set(exact)):
        raise ValueError(f"no exact coefficients for {len(unknown)} attributes, for example {unknown[0]}")
    if not exact:
        raise ValueError("exact coefficients are empty: there is nothing to compare with")
    zeros = np.zeros_like(next(iter(exact.values())))
    return float(np.mean([np.abs(found.get(key, zeros) - alpha) for key, alpha in exact.items()]))
