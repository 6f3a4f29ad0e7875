"""A bounded sample of the training images' features, the same however the images are split."""

# B batch, C emotions, D width, N rows of a sample

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.seeds import id_hashes


@dataclass
class EmotionSample:
    """Up to N images of one emotion: those with the smallest hashes of their ids."""

    keys: list[int] = field(default_factory=list)
    """Hashes, ascending."""
    ids: list[str] = field(default_factory=list)
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Member to (N, D)."""


@dataclass
class FeatureSample:
    """Accumulates the samples of all emotions. Parts over any split of the images merge in any order."""

    size: int
    """Most images of an emotion."""
    emotions: dict[int, EmotionSample] = field(default_factory=dict)

    def update(
        self,
        emotions: Sequence[int] | NDArray[np.int64],
        ids: Sequence[str],
        features: Mapping[str, ArrayLike],
    ) -> None:
        """Add a batch of training images, in place.

        Args:
            emotions: (B,) indices of emotions.
            ids: of the B images, without repeats in all.
            features: member to (B, D).
        """
        rows_of = np.asarray(emotions, dtype=np.int64)
        batch = {member: np.asarray(rows, dtype=np.float32) for member, rows in features.items()}
        for emotion in np.unique(rows_of):
            rows = np.flatnonzero(rows_of == emotion)
            chosen = [str(ids[int(row)]) for row in rows]
            part = EmotionSample(
                id_hashes(chosen).tolist(), chosen, {m: values[rows] for m, values in batch.items()}
            )
            self._add(int(emotion), part)

    def merge(self, other: "FeatureSample") -> "FeatureSample":
        """The sample of the images of both, as a new object."""
        merged = FeatureSample(self.size, dict(self.emotions))
        for emotion, part in other.emotions.items():
            merged._add(emotion, part)
        return merged

    def _add(self, emotion: int, part: EmotionSample) -> None:
        known = self.emotions.get(emotion)
        keys = (known.keys if known else []) + part.keys
        ids = (known.ids if known else []) + part.ids
        features = {
            member: np.concatenate([known.features[member], rows]) if known else rows
            for member, rows in part.features.items()
        }
        order = sorted(range(len(keys)), key=lambda i: (keys[i], ids[i]))[: self.size]
        self.emotions[emotion] = EmotionSample(
            [keys[i] for i in order],
            [ids[i] for i in order],
            {member: rows[order] for member, rows in features.items()},
        )
