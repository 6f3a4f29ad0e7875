"""Make one image of a run again, from its provenance alone."""

import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniemo_ray.devices import set_tf32
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER
from uniemo_ray.feedback.schema import IMAGES, PLAN
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.rendering import Rendering
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import committed
from uniemo_ray.store.verify import shard_folders


class Regenerated(NamedTuple):
    """An image that was made anew."""

    png: bytes
    is_same: bool
    """Whether its bytes are those of the run; another kind of processor or library may round otherwise."""
    recorded: dict[str, Any]
    """The row of the run, without the picture."""
    sha256: str
    """Digest of `png`."""


def regenerate(store: Store, image_id: str) -> Regenerated:
    """Find an image's row in a run's stored shards and paint it again, on the kind of processor that made it.

    Args:
        store: the run's root.
        image_id: as in the image and score rows.

    Raises:
        ValueError: no such image, one that failed, or a run that no longer holds its model.
    """
    row = find_image(store, image_id)
    if row["reason"] is not None:
        raise ValueError(f"image {image_id} has no picture in {store.uri}: {row['reason']}")
    plan = {name: np.array([row[name]], dtype=object) for name in PLAN.names}
    versions = json.loads(row["versions"])
    device = versions.get("processor", "cpu")
    if "tf32" in versions:
        set_tf32(versions["tf32"])
    model = find_model(store, str(row["model"]))
    generator = ImageGenerator(
        model, threads=int(row["threads"]), device=device, rendering=Rendering.read(row["versions"])
    )
    made = generator(plan)
    png, digest = made["image"][0], made["sha256"][0]
    if png is None:
        raise ValueError(f"image {image_id} could not be made again: {made['reason'][0]}")
    recorded = {name: value for name, value in row.items() if name != "image"}
    return Regenerated(png, digest == row["sha256"], recorded, digest)


def find_image(store: Store, image_id: str) -> dict[str, Any]:
    """The IMAGES row of an image.

    Raises:
        ValueError: no generating step of the run has committed it.
    """
    for folder in shard_folders(store, f"{IMAGES_FOLDER}/"):
        sub = store.sub(folder)
        filesystem, root = sub.arrow()
        for entry in committed(sub, f"{IMAGES_FOLDER}/").values():
            path = f"{root}/{entry.key}"
            ids = pq.read_table(path, filesystem=filesystem, columns=["image_id"])["image_id"]
            at = pc.index(ids, pa.scalar(image_id, ids.type)).as_py()
            if at >= 0:
                table = pq.read_table(path, filesystem=filesystem, columns=IMAGES.names)
                row: dict[str, Any] = table.slice(at, 1).to_pylist()[0]
                return row
    raise ValueError(f"{store.uri} holds no generated image {image_id!r}")


def find_model(store: Store, fingerprint: str) -> str:
    """Address of the run's model folder with this fingerprint.

    Raises:
        ValueError: the run holds none.
    """
    for key in store.list("steps/history"):
        if key.startswith("steps/history/model-"):
            record = store.read_json(key)
            folder = f"artefacts/{key.rpartition('/')[2].removesuffix('.json')}/model"
            if record["outputs"].get("model") == fingerprint and not store.is_empty(folder):
                return store.sub(folder).uri
    raise ValueError(f"{store.uri} no longer holds the model {fingerprint[:12]} that made this image")
