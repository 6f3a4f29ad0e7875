"""Which images of a set count: ids and emotions, some 60 bytes for each image, and nothing else of them."""

# M images that count, B some of them

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.metrics.pairs import Ints
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.shards import ShardEntry

SCORES_FOLDER = "scores"


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Images with scores, in the order of their score rows."""

    ids: pa.Array
    """(M,) text."""
    emotions: pa.Array
    """(M,) dictionary of text."""
    places: Ints
    """(M,) number of each image's row among all score rows, ascending."""
    left_out: pa.Array
    """Ids of images whose score row has a reason."""
    rows: int
    """Score rows in all."""

    def ids_of(self, rows: Ints) -> pa.Array:
        """Ids (B,) of some of the images."""
        return self.ids.take(pa.array(rows)).cast(pa.string())

    def shards_of(self, rows: Ints, entries: Sequence[ShardEntry]) -> list[ShardEntry]:
        """The shards that hold these images, of a set whose rows are in the same order as the score rows.

        All shards where the numbers of rows say that they are not.
        """
        ends = list(accumulate(entry.rows for entry in entries))
        if not ends or ends[-1] != self.rows:
            return list(entries)
        numbers = np.unique(np.searchsorted(np.array(ends), self.places[rows], side="right"))
        return [entries[number] for number in numbers]


def read_scored(scores: Store) -> ScoredImages:
    """Ids and emotions of a scoring step's rows; features are not read.

    Raises:
        FileNotFoundError: nothing is committed.
    """
    ids, emotions, places, left_out, start = [], [], [], [], 0
    for table in iterate_columns(scores, f"{SCORES_FOLDER}/", ["image_id", "emotion", "reason"]):
        counts = pc.is_null(table["reason"]).combine_chunks()
        rows = table.filter(counts)
        ids.append(rows["image_id"].cast(pa.large_string()).combine_chunks())
        emotions.append(rows["emotion"].dictionary_encode().combine_chunks())
        places.append(start + np.flatnonzero(counts.to_numpy(zero_copy_only=False)))
        left_out += table.filter(pc.invert(counts))["image_id"].to_pylist()
        start += table.num_rows
    return ScoredImages(
        ids=pa.concat_arrays(ids),
        emotions=pa.chunked_array(emotions).unify_dictionaries().combine_chunks(),
        places=np.concatenate(places).astype(np.int64),
        left_out=pa.array(left_out, pa.string()),
        rows=start,
    )
