"""Schemas and their check."""

import pyarrow as pa
import pytest

from uniemo_ray.feedback.schema import IMAGES, KEPT, PLAN, SCORES, require_columns


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
