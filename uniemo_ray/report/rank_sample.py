"""The images that the scatter of ranks shows: all of a small round, a fair sample of a large one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.seeds import id_hashes

MOST_DOTS = 12_000
"""Dots of a chart of 330 px: more cover each other. Unit: images. Each takes 13.5 bytes of the page."""
COLUMNS = ("image_id", "emotion", "emo_score", "sem_score", "emo_rank", "sem_rank", "kept")


@dataclass(frozen=True, eq=False)
class RankSample:
    """Ranked images of one round, and counts of all of them."""

    rows: pa.Table
    """`COLUMNS` of the images that are shown, by ascending image id."""
    sizes: Mapping[str, int]
    """Ranked images by emotion."""
    kept: int
    dropped: int
    """Ranked images that the filter did not keep."""
    unranked: int


def with_verdicts(scores: pa.Table, kept: pa.Table) -> pa.Table:
    """Score rows with the filter's verdicts on them: `COLUMNS`.

    Raises:
        ValueError: the rows do not speak of the same images, one by one.
    """
    if not scores["image_id"].combine_chunks().equals(kept["image_id"].combine_chunks()):
        raise ValueError("the filter's verdicts are not on these score rows: run the filter again")
    columns = {name: scores[name] for name in COLUMNS[:4]} | {name: kept[name] for name in COLUMNS[4:]}
    return pa.table(columns)


def sample_ranks(tables: Iterable[pa.Table], criteria: Sequence[str], *, most: int = MOST_DOTS) -> RankSample:
    """At most `most` ranked images, those whose ids have the smallest hashes.

    So the sample says nothing but what all rows say, it is the same in every report, and of a round that has
    grown it keeps what it showed as far as possible. One table at a time is held.

    Args:
        tables: `COLUMNS` of all images of a round; a rank is null when an image is not ranked by this score.
        criteria: `emo` and `sem`, as far as the filter uses them.
        most: images to show.

    Raises:
        ValueError: naming a column that is missing.
    """
    sizes: Counter[str] = Counter()
    kept = unranked = 0
    held, hashes = pa.table({}), np.zeros(0, dtype=np.uint64)
    for table in tables:
        if missing := set(COLUMNS) - set(table.column_names):
            raise ValueError(f"the report's score rows lack {', '.join(sorted(missing))}")
        ranked = table.select(COLUMNS)
        for name in criteria:
            ranked = ranked.filter(pc.is_valid(ranked[f"{name}_rank"]))
        unranked += table.num_rows - ranked.num_rows
        sizes.update(ranked["emotion"].to_pylist())
        kept += pc.sum(ranked["kept"]).as_py() or 0
        own = id_hashes(ranked["image_id"].to_pylist())
        both = np.concatenate([hashes, own])
        smallest = np.sort(np.argsort(both, kind="stable")[:most])
        joined = pa.concat_tables([held, ranked]) if held.num_columns else ranked
        held, hashes = joined.take(pa.array(smallest)), both[smallest]
    rows = held.sort_by("image_id").combine_chunks() if held.num_columns else held
    return RankSample(rows, dict(sizes), kept=kept, dropped=sum(sizes.values()) - kept, unranked=unranked)
