"""The actors of the published networks, on random weights in the published files' form."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from uniemo_ray.data.images import ImageError
from uniemo_ray.distributed.shards.actors import published
from uniemo_ray.distributed.shards.actors.published import JudgeActor
from uniemo_ray.metrics import resnet
from uniemo_ray.metrics.pictures import as_saved
from uniemo_ray.metrics.resnet import SemanticJudges, cropped

BATCH = 2


def rows(pixels: np.ndarray) -> pa.Table:
    images = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG")
        images.append(file.getvalue())
    ids = [f"i{number}" for number in range(len(images))]
    return pa.table(
        {"image_id": ids, "emotion": ["awe"] * len(images), "image": pa.array(images, pa.binary())}
    )


@pytest.mark.parametrize("source", ["real", "generated"])
def test_judges_see_every_image(
    resnet_dir: Path, monkeypatch: pytest.MonkeyPatch, source: Literal["real", "generated"]
) -> None:
    for module in (published, resnet):
        monkeypatch.setattr(module, "BATCH", BATCH)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH + 1, 32, 32, 3), dtype=np.uint8)
    actor = JudgeActor(str(resnet_dir), source=source, max_pixels=32 * 32)
    found = actor(rows(pixels))
    read = [as_saved(rgb) if source == "generated" else rgb for rgb in pixels]
    scene, object_ = SemanticJudges(resnet_dir)(np.stack([cropped(rgb) for rgb in read]))
    assert found["image_id"].to_pylist() == [f"i{number}" for number in range(BATCH + 1)]
    np.testing.assert_allclose(found["scene_probability"].to_numpy(), scene, rtol=1e-5)
    np.testing.assert_allclose(found["object_probability"].to_numpy(), object_, rtol=1e-5)
    nothing = actor(rows(pixels[:0]))
    assert nothing.schema == found.schema
    with pytest.raises(ImageError, match="huge"):
        actor(rows(np.zeros((1, 33, 33, 3), dtype=np.uint8)))
