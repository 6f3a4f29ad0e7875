"""Schemas and their check."""

import pyarrow as pa
import pytest

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import (
    COEFFICIENTS,
    IMAGES,
    KEPT,
    PLAN,
    SCORES,
    coefficients_schema,
    require_columns,
)


def test_images_carry_their_whole_plan_row() -> None:
    assert set(PLAN.names) <= set(IMAGES.names)
    assert all(IMAGES.field(field.name) == field for field in PLAN)


def test_a_fitting_table_passes_with_more_columns() -> None:
    table = KEPT.empty_table().append_column("more", pa.array([], pa.int8()))
    require_columns(table, KEPT, name="kept")


def test_every_problem_is_named() -> None:
    table = SCORES.empty_table().drop_columns(["emotion"])
    table = table.set_column(table.column_names.index("emo_score"), "emo_score", pa.array([], pa.string()))
    with pytest.raises(ValueError, match=r"scores.*'emotion' is missing.*'emo_score' is string, not float"):
        require_columns(table, SCORES, name="scores")


def test_a_table_without_columns_lacks_them_all() -> None:
    with pytest.raises(ValueError, match="kept table") as raised:
        require_columns(pa.table({"kept": pa.array([], pa.string())}), KEPT, name="kept")
    problems = "; ".join(f"column '{name}' is missing" for name in ("image_id", "emo_rank", "sem_rank"))
    others = "column 'kept' is string, not bool; column 'reason' is missing"
    assert str(raised.value) == f"kept table does not fit its schema: {problems}; {others}"


def test_coefficients_have_a_column_for_each_label() -> None:
    assert coefficients_schema(["joy", "fear"]).equals(
        pa.schema(
            {
                "attribute": pa.string(),
                "kind": pa.string(),
                "count": pa.int64(),
                "alpha_joy": pa.float64(),
                "alpha_fear": pa.float64(),
            }
        )
    )
    assert coefficients_schema(EMOTIONS).equals(COEFFICIENTS)


def test_scores_survive_parquet(tmp_path: pytest.TempPathFactory) -> None:
    import pyarrow.parquet as pq

    rows = [
        {"image_id": "a", "emo_score": 0.5, "probabilities": [0.125] * 8},
        {"image_id": "b", "reason": "x"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES), f"{tmp_path}/s.parquet")
    table = pq.read_table(f"{tmp_path}/s.parquet")
    assert table.schema.equals(SCORES)
    assert table["probabilities"].to_pylist() == [[0.125] * 8, None]
