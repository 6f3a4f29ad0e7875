"""Arrow schemas of the feedback's tables: the contract between planner, generator, scorer and filter."""

from collections.abc import Sequence

import pyarrow as pa

from uniemo_ray.emotions import EMOTIONS

PLAN = pa.schema(
    [
        ("image_id", pa.string()),
        ("emotion", pa.string()),
        ("kind", pa.string()),  # emotion: the fused condition; plain: the prompt as it is
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("steps", pa.int32()),
        ("guidance", pa.float32()),
        ("scheduler", pa.string()),
        ("width", pa.int32()),  # px
        ("height", pa.int32()),  # px
        ("micro_batch", pa.int32()),
        ("threads", pa.int32()),
        ("model", pa.string()),  # fingerprint of the model folder
    ]
)
"""One row per image to generate; an image is a function of its row alone."""

IMAGES = pa.schema(
    [
        PLAN.field("image_id"),
        ("image", pa.binary()),  # PNG
        ("sha256", pa.string()),  # of `image`
        *list(PLAN)[1:],
        ("scene", pa.string()),  # attribute found for the drawn scene feature
        ("scene_weight", pa.float32()),  # its coefficient at the wanted emotion
        ("object", pa.string()),
        ("object_weight", pa.float32()),
        ("versions", pa.string()),  # JSON
        ("reason", pa.string()),  # why there is no image; null when there is one
    ]
)
"""A generated image with its provenance."""


def scores_schema(classes: int) -> pa.Schema:
    """What the scorers say about a generated image. Scores travel, images do not."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("emotion", pa.string()),  # the intended one
            ("emo_score", pa.float32()),  # probability of the intended emotion
            ("sem_score", pa.float32()),  # max of the two probabilities below
            ("scene", pa.string()),
            ("scene_probability", pa.float32()),
            ("object", pa.string()),
            ("object_probability", pa.float32()),
            ("predicted", pa.string()),
            ("probabilities", pa.list_(pa.float32(), classes)),  # in the order of the label space
            ("clip_feature", pa.list_(pa.float32())),  # what was scored: frozen CLIP, unnormalised
            ("reason", pa.string()),  # why there is no score; null when there is one
        ]
    )


SCORES = scores_schema(len(EMOTIONS))
"""The scores of a run with eight emotions."""

KEPT = pa.schema(
    [
        ("image_id", pa.string()),
        ("emo_rank", pa.int64()),  # 0 is best; null when not ranked by this score
        ("sem_rank", pa.int64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why it was rejected; null when kept
    ]
)
"""The filter's verdict on each scored image."""

ALPHA = "alpha_"
"""Before the name of an emotion: the column of its coefficients."""


def coefficients_schema(labels: Sequence[str]) -> pa.Schema:
    """Emotional correlation coefficients (eq. 5), one row per attribute that an image carries."""
    alphas = [pa.field(f"{ALPHA}{label}", pa.float64()) for label in labels]
    named = [("attribute", pa.string()), ("kind", pa.string()), ("count", pa.int64())]  # kind: scene, object
    return pa.schema([*(pa.field(*field) for field in named), *alphas])


COEFFICIENTS = coefficients_schema(EMOTIONS)
"""The coefficients of the eight emotions."""


def require_columns(table: pa.Table, schema: pa.Schema, *, name: str) -> None:
    """Check that `table` has the columns of `schema` with its types; more columns are fine.

    Raises:
        ValueError: naming every column that is missing or of another type.
    """
    problems = []
    for field in schema:
        if field.name not in table.column_names:
            problems.append(f"column {field.name!r} is missing")
        elif table.schema.field(field.name).type != field.type:
            problems.append(
                f"column {field.name!r} is {table.schema.field(field.name).type}, not {field.type}"
            )
    if problems:
        raise ValueError(f"{name} table does not fit its schema: {'; '.join(problems)}")
