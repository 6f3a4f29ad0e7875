"""The actor that needs the published Inception-v3: features for true FID."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from uniemo_ray.data.images import decode_rgb, to_square
from uniemo_ray.distributed.actors.tables import to_columns, to_table
from uniemo_ray.metrics.inception import InceptionFeatures

MAX_PIXELS = 50_000_000
BATCH = 16


class InceptionActor:
    """Images to `inception_feature` (2048 numbers), with their emotion."""

    def __init__(self, weights_dir: str, size_px: int, device: str = "cpu") -> None:
        """Load the weights; images are brought to `size_px` first, real and generated ones alike."""
        torch.set_num_threads(1)
        self.features, self.size_px = InceptionFeatures(weights_dir, device=device), size_px

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and the feature, of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        images = [
            to_square(decode_rgb(data, MAX_PIXELS), self.size_px) for data in table["image"].to_pylist()
        ]
        found = [self.features(np.stack(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        feature = np.concatenate(found) if found else np.zeros((0, 2048), dtype=np.float32)
        return to_table(to_columns(table, ("image_id", "emotion")) | {"inception_feature": feature})
