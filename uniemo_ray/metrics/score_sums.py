"""What score rows say of a set of images, as sums that merge: their rows are never together in memory."""

# B rows of a shard, C emotions, E CLIP joint width

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.emotions import LabelSpace
from uniemo_ray.metrics.accuracy import AccuracyCounts
from uniemo_ray.metrics.emo_a import emotion_counts
from uniemo_ray.metrics.frechet import FeatureSums, SumsByEmotion, add_sums
from uniemo_ray.metrics.sem_c import clarity
from uniemo_ray.statistics.moments import Moments

Judge = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""CLIP features (B, E) to probabilities of the emotions (B, C)."""
SCORE_COLUMNS = (
    "emotion",
    "probabilities",
    "scene_probability",
    "object_probability",
    "clip_feature",
    "reason",
)


@dataclass
class ScoreSums:
    """Sums over the score rows that have no reason to be left out."""

    own: AccuracyCounts
    """Of the probabilities that the filter ranks by."""
    count: int = 0
    public: AccuracyCounts | None = None
    """Of the public judge, if there is one for these features."""
    clarity: Moments = field(default_factory=lambda: Moments.empty(1))
    """Of the likelier of scene and object."""
    unclear: int = 0
    """Images without either probability."""
    features: dict[str, FeatureSums] = field(default_factory=dict)
    """CLIP features by emotion."""

    def add(self, other: "ScoreSums") -> "ScoreSums":
        """Add the sums of other images, in place; returns itself."""
        self.count += other.count
        self.own = self.own.merge(other.own)
        if other.public is not None:
            self.public = other.public if self.public is None else self.public.merge(other.public)
        self.clarity = self.clarity.merge(other.clarity)
        self.unclear += other.unclear
        self.features = dict(sorted(add_sums(self.features, other.features).items()))
        return self


def sum_scores(tables: Iterable[pa.Table], *, space: LabelSpace, judge: Judge | None = None) -> ScoreSums:
    """Sums over tables of `SCORE_COLUMNS`, of which one at a time is held.

    Args:
        tables: shard by shard.
        space: the C emotions.
        judge: the public judge, for features of the CLIP that it is for, and for its own eight emotions.
    """
    sums, features = ScoreSums(AccuracyCounts(space)), SumsByEmotion()
    for table in tables:
        rows = table.filter(pc.is_null(table["reason"]))
        if not rows.num_rows:
            continue
        emotions, clip = rows["emotion"].to_pylist(), matrix(rows["clip_feature"])
        semantic = np.fmax(numbers(rows["scene_probability"]), numbers(rows["object_probability"]))
        clear = semantic[np.isfinite(semantic)]
        part = ScoreSums(
            count=rows.num_rows,
            own=emotion_counts(emotions, matrix(rows["probabilities"]), space=space),
            public=None if judge is None else emotion_counts(emotions, judge(clip), space=space),
            clarity=clarity(clear, clear),
            unclear=len(semantic) - len(clear),
        )
        sums.add(part)
        features.add(clip, emotions)
    sums.features = features.result()
    return sums


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of B lists of K numbers as (B, K)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), -1), dtype=np.float32)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of numbers as (B,), null as NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32)
