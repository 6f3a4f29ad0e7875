"""The pictures that the report shows, and how they are put into the page."""

import base64
import io
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

Source = Literal["real", "plain_prompt", "generated"]
PIXEL_ART_PX = 160
SHOWN_PX = 256


@dataclass(frozen=True)
class ShownSample:
    """One picture with what its caption says. Scores are probabilities in [0, 1]."""

    image_id: str
    source: Source
    emotion: str
    """The intended emotion (of a real image: its label)."""
    image: bytes
    """PNG, JPEG or whatever Pillow reads."""
    round: int | None = None
    """Feedback round in which the image was generated; None for other images."""
    scene: str | None = None
    """Chosen for the condition (of a real image: its annotation)."""
    scene_weight: float | None = None
    object: str | None = None
    object_weight: float | None = None
    emo_score: float | None = None
    """Probability of `emotion` by the section-2 classifier."""
    predicted: str | None = None
    """That classifier's arg max."""
    kept: bool | None = None
    """By the filter; None where no filter ran."""


@dataclass(frozen=True)
class Picture:
    """A picture ready for an `img` element."""

    uri: str
    is_pixel_art: bool
    """Small enough to be shown enlarged, with crisp pixels."""


def embed(sample: ShownSample) -> Picture:
    """A `data:` URI of the picture; large ones are shrunk to 256 px, small PNGs go in byte for byte.

    Raises:
        ValueError: for bytes that are no image, naming the image id.
    """
    try:
        with Image.open(io.BytesIO(sample.image)) as image:
            if image.format == "PNG" and max(image.size) <= PIXEL_ART_PX:
                return Picture(_data_uri("image/png", sample.image), is_pixel_art=True)
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(
            f"sample {sample.image_id!r} cannot be shown, its image is unreadable: {error}"
        ) from None
    small.thumbnail((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return Picture(_data_uri("image/jpeg", buffer.getvalue()), is_pixel_art=False)


def pick_samples(
    images: Iterable[pa.Table],
    *,
    source: Source,
    per_emotion: int = 4,
    round_: int | None = None,
    scores: pa.Table | None = None,
    kept: pa.Table | None = None,
) -> list[ShownSample]:
    """The first pictures of each emotion by image id: nobody chose the pretty ones.

    Args:
        images: Tables, of which one at a time is held, with `image_id`, `emotion`, `image` and where known
            `scene`, `scene_weight`, `object` (or `objects`, of which the first is named) and
            `object_weight`. A null image is passed over.
        source: Where these rows come from.
        per_emotion: How many of each emotion.
        round_: Round of generated images.
        scores: Score rows of these images: `image_id`, `emo_score`, `predicted`.
        kept: Filter rows of these images: `image_id`, `kept`.
    """
    chosen = _first_pictures(images, per_emotion).to_pylist()
    ids = pa.array([row["image_id"] for row in chosen], pa.string())
    score_of = _rows_of(scores, ids, ["emo_score", "predicted"])
    kept_of = _rows_of(kept, ids, ["kept"])
    samples = []
    for row in chosen:
        row |= score_of.get(row["image_id"], {}) | kept_of.get(row["image_id"], {})
        row["object"] = row.get("object") or next(iter(row.get("objects") or []), None)
        fields = {name: row.get(name) for name in ShownSample.__dataclass_fields__}
        samples.append(ShownSample(**(fields | {"source": source, "round": round_})))
    return samples


def first_pictures(images: Iterable[pa.Table], *, per_emotion: int = 4) -> dict[str, int]:
    """Which pictures `pick_samples` chooses, and the number of the table that holds each.

    Args:
        images: tables of `image_id`, `emotion` and `reason`, which is null where there is a picture. One at a
            time is held.
        per_emotion: as for `pick_samples`.
    """
    first: dict[str, list[tuple[str, int]]] = {}
    for number, table in enumerate(images):
        rows = table.filter(pc.is_null(table["reason"]))
        for name, emotion in zip(rows["image_id"].to_pylist(), rows["emotion"].to_pylist(), strict=True):
            own = first.setdefault(emotion, [])
            if len(own) < per_emotion or name < own[-1][0]:
                insort(own, (name, number))
                del own[per_emotion:]
    return {name: number for own in first.values() for name, number in own}


def _first_pictures(tables: Iterable[pa.Table], per_emotion: int) -> pa.Table:
    """The first rows of each emotion of all tables, by image id."""
    found: list[pa.Table] = []
    for table in tables:
        # a copy by way of `take`: a slice would keep its whole shard in memory
        found = [(joined := pa.concat_tables([*found, table])).take(_first_rows(joined, per_emotion))]
    return pa.concat_tables(found)


def _first_rows(images: pa.Table, per_emotion: int) -> list[int]:
    keys = images.select(["image_id", "emotion"]).append_column(
        "row", pa.array(range(images.num_rows), pa.int64())
    )
    keys = keys.filter(pc.is_valid(images["image"])).sort_by("image_id").to_pylist()
    seen: dict[str, int] = {}
    rows = []
    for key in keys:
        seen[key["emotion"]] = seen.get(key["emotion"], 0) + 1
        if seen[key["emotion"]] <= per_emotion:
            rows.append(key["row"])
    return rows


def _rows_of(table: pa.Table | None, ids: pa.Array, columns: list[str]) -> dict[str, dict[str, Any]]:
    if table is None:
        return {}
    rows = table.select(["image_id", *columns]).filter(pc.is_in(table["image_id"], value_set=ids)).to_pylist()
    return {row.pop("image_id"): row for row in rows}


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
