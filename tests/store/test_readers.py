"""Committed shards of images are read as they are by whatever reads Parquet."""

import io
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from PIL import Image

from uniemo_ray.inference.provenance import encode_png
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

ROWS = 6


def pixels(number: int) -> np.ndarray:
    return np.full((8, 8, 3), 10 * number, dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> str:
    """A pattern for two shards with a picture in each row."""
    store = open_store(str(tmp_path))
    for part in range(2):
        numbers = range(part * 3, part * 3 + 3)
        rows = {
            "image_id": [f"awe-{number}" for number in numbers],
            "image": [encode_png(pixels(number), {"seed": number}) for number in numbers],
            "reason": pa.nulls(3, pa.string()),
        }
        commit_shard(store, f"images/part-{part:05d}", pa.table(rows), plan_hash="p")
    return str(tmp_path / "images" / "*.parquet")


def assert_pictures(ids: list[str], images: list[bytes]) -> None:
    assert ids == [f"awe-{number}" for number in range(ROWS)]
    for number, data in enumerate(images):
        assert (np.asarray(Image.open(io.BytesIO(data))) == pixels(number)).all()


def test_pyarrow(files: str) -> None:
    table = ds.dataset(str(Path(files).parent), format="parquet").to_table().sort_by("image_id")
    assert_pictures(table["image_id"].to_pylist(), table["image"].to_pylist())


def test_pandas(files: str) -> None:
    frame = pandas.read_parquet(Path(files).parent).sort_values("image_id")
    assert_pictures(list(frame["image_id"]), list(frame["image"]))


def test_duckdb(files: str) -> None:
    rows = duckdb.sql(f"select image_id, image from '{files}' where reason is null order by 1").fetchall()
    assert_pictures([row[0] for row in rows], [row[1] for row in rows])


def test_datasets_with_its_image_feature(files: str, tmp_path: Path) -> None:
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "c"))
    decoded = found.cast_column("image", datasets.Image()).sort("image_id")
    assert decoded["image_id"][:] == [f"awe-{number}" for number in range(ROWS)]
    for number, row in enumerate(decoded):
        assert (np.asarray(row["image"]) == pixels(number)).all()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_data(files: str) -> None:
    import ray.data

    rows = ray.data.read_parquet(str(Path(files).parent)).sort("image_id").take_all()
    assert_pictures([row["image_id"] for row in rows], [row["image"] for row in rows])
