"""What one task finds out about some committed shards. Each class is a piece of work that can be pickled."""

# B rows of a shard, W width of a feature

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.data.emosketch.classes import ExactRule
from uniemo_ray.data.images import decode_rgb, to_square, to_unit_range
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.metrics.accuracy import AccuracyCounts
from uniemo_ray.metrics.emo_a import exact_counts
from uniemo_ray.metrics.frechet import FeatureSums, SumsByEmotion
from uniemo_ray.metrics.recogniser import Recogniser, recognise
from uniemo_ray.metrics.score_sums import SCORE_COLUMNS, Judge, ScoreSums, matrix, sum_scores
from uniemo_ray.metrics.seen import Seen, count_seen
from uniemo_ray.metrics.sem_c import clarity
from uniemo_ray.statistics.moments import Moments
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import ShardEntry, iterate_entries

ROWS_PER_TASK = 65_536
"""Rows of features, scores or probabilities that one task takes. Its result is as large as thousands."""
BYTES_PER_TASK = 1 << 28
"""Bytes of picture shards that one task takes, unless one shard is larger."""
PICTURES = 64
"""Pictures in memory at a time."""

Entries = Sequence[ShardEntry]


def pieces(
    entries: Iterable[ShardEntry], *, rows: int | None = None, size: int | None = None
) -> list[Entries]:
    """Neighbouring shards together, up to so many rows and so many bytes; a larger shard is by itself."""
    found: list[list[ShardEntry]] = []
    held_rows, held_bytes = 0, 0
    for entry in entries:
        held_rows, held_bytes = held_rows + entry.rows, held_bytes + entry.bytes
        if not found or held_rows > (rows or held_rows) or held_bytes > (size or held_bytes):
            found.append([])
            held_rows, held_bytes = entry.rows, entry.bytes
        found[-1].append(entry)
    return [tuple(piece) for piece in found]


@dataclass(frozen=True)
class SumScores:
    """Shards of SCORES rows to their sums."""

    store: Store
    judge: Judge | None
    space: LabelSpace
    """The emotions."""

    def __call__(self, entries: Entries) -> ScoreSums:
        """Sums over all rows."""
        tables = iterate_entries(self.store, entries, columns=SCORE_COLUMNS)
        return sum_scores(tables, space=self.space, judge=self.judge)


@dataclass(frozen=True)
class SumFeatures:
    """Shards with `emotion` and a feature (B, W) to sums by emotion."""

    store: Store
    column: str
    left_out: pa.Array | None = None
    """Ids of images that do not count."""

    def __call__(self, entries: Entries) -> dict[str, FeatureSums]:
        """Sums over all rows that count."""
        sums = SumsByEmotion()
        for table in iterate_entries(self.store, entries, columns=["image_id", "emotion", self.column]):
            rows = without(table, self.left_out)
            if rows.num_rows:
                sums.add(matrix(rows[self.column]), rows["emotion"].to_pylist())
        return sums.result()


@dataclass(frozen=True)
class SumClarity:
    """Shards of what both ResNet-50 say to the moments of Sem-C."""

    store: Store
    left_out: pa.Array | None = None

    def __call__(self, entries: Entries) -> Moments:
        """Moments over all rows that count."""
        total, names = Moments.empty(1), ("scene_probability", "object_probability")
        for table in iterate_entries(self.store, entries, columns=["image_id", *names]):
            rows = without(table, self.left_out)
            total = total.merge(clarity(*(rows[name].to_numpy() for name in names)))
        return total


@dataclass(frozen=True)
class PictureCounts:
    """What a recogniser finds on pictures."""

    exact: AccuracyCounts
    """Of `emo_a_exact`."""
    seen: Seen = field(default_factory=Seen)

    def merge(self, other: "PictureCounts") -> "PictureCounts":
        """Counts over the pictures of both, as a new object."""
        return PictureCounts(self.exact.merge(other.exact), self.seen.merge(other.seen))


@dataclass(frozen=True)
class CountPictures:
    """Shards of pictures to what a recogniser finds on them."""

    store: Store
    recogniser: Recogniser
    size_px: int
    max_pixels: int
    rule: ExactRule
    """What the scene and object of a picture say of its emotion."""
    space: LabelSpace
    """The emotions."""
    is_generated: bool
    """Whether columns `scene` and `object` say what a picture's condition names."""
    left_out: pa.Array | None = None

    def __call__(self, entries: Entries) -> PictureCounts:
        """Counts over all pictures that count."""
        total = PictureCounts(AccuracyCounts(self.space))
        named = ["scene", "object"] if self.is_generated else []
        for table in iterate_entries(self.store, entries, columns=["image_id", "emotion", "image", *named]):
            rows = without(table, self.left_out)
            rows = rows.filter(pc.is_valid(rows["image"]))
            for start in range(0, rows.num_rows, PICTURES):
                total = total.merge(self._count(rows.slice(start, PICTURES)))
        return total

    def _count(self, rows: pa.Table) -> PictureCounts:
        squares = [
            to_square(decode_rgb(data, self.max_pixels), self.size_px) for data in rows["image"].to_pylist()
        ]
        seen = recognise(self.recogniser, to_unit_range(np.stack(squares)))
        emotions, scenes, objects = rows["emotion"].to_pylist(), seen.scene.numpy(), seen.object.numpy()
        rule = self.rule
        counts = count_seen(
            emotions,
            scenes,
            objects,
            scene_names=rule.scenes,
            object_names=rule.objects,
            named_scenes=rows["scene"].to_pylist() if self.is_generated else (),
            named_objects=rows["object"].to_pylist() if self.is_generated else (),
        )
        return PictureCounts(exact_counts(emotions, scenes, objects, rule=rule, space=self.space), counts)


@dataclass(frozen=True)
class PickRows:
    """Shards to one column of some of their rows."""

    store: Store
    ids: pa.Array
    """Of the wanted images."""
    column: str

    def __call__(self, entries: Entries) -> pa.Table:
        """Columns `image_id` and the wanted one."""
        columns = ["image_id", self.column]
        found = []
        for table in iterate_entries(self.store, entries, columns=columns):
            # filtering copies: a slice would keep its whole shard in memory
            found.append(table.filter(pc.is_in(table["image_id"], value_set=self.ids)))
        return pa.concat_tables(found)


def without(table: pa.Table, ids: pa.Array | None) -> pa.Table:
    """The rows of other images than these."""
    if ids is None or not len(ids):
        return table
    return table.filter(pc.invert(pc.is_in(table["image_id"], value_set=ids)))
