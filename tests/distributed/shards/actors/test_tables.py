"""Arrow tables to columns and back."""

import numpy as np
import pyarrow as pa

from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.distributed.shards.actors.tables import conform, to_columns, to_table
from uniemo_ray.feedback.schema import SCORES


def test_features_become_fixed_lists_and_labels_keep_their_types():
    columns = {
        "image_id": np.array(["a", "b"], dtype=object),
        "scene": np.array([None, "sky"], dtype=object),
        "objects": np.array([["x"], []], dtype=object),
        "clip_feature": np.arange(6, dtype=np.float64).reshape(2, 3),
    }
    table = to_table(columns)
    assert table.schema.field("scene").type == SAMPLES.field("scene").type
    assert table["objects"].to_pylist() == [["x"], []]
    assert table.schema.field("clip_feature").type == pa.list_(pa.float32(), 3)
    assert table["clip_feature"].to_pylist() == [[0, 1, 2], [3, 4, 5]]


def test_absent_columns_are_left_out():
    assert list(to_columns(pa.table({"image_id": ["a"], "x": [1]}), ("image_id", "scene"))) == ["image_id"]


def test_conform_turns_nan_into_null():
    columns = {f.name: np.array([None], dtype=object) for f in SCORES}
    columns["emo_score"] = np.array([np.nan], dtype=np.float32)
    columns["sem_score"] = np.array([0.5], dtype=np.float32)
    columns["probabilities"] = np.full((1, 8), 0.125, dtype=np.float32)
    table = conform(columns, SCORES)
    assert table.schema == SCORES
    assert table["emo_score"].to_pylist() == [None]
    assert table["probabilities"].to_pylist() == [[0.125] * 8]
