"""Actors that need published networks: Inception-v3 for true FID, both ResNet-50 for Sem-C."""

# M images, B batch

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from uniemo_ray.data.images import decode_rgb, to_square
from uniemo_ray.distributed.shards.actors.tables import to_columns, to_table
from uniemo_ray.metrics.inception import LAST_WIDTH, InceptionFeatures
from uniemo_ray.metrics.resnet import SemanticJudges

BATCH = 16


class InceptionActor:
    """Images to `inception_feature` (2048 numbers), with their emotion."""

    def __init__(self, weights_dir: str, size_px: int, max_pixels: int, device: str = "cpu") -> None:
        """Load the weights; images are brought to `size_px` first, real and generated ones alike."""
        torch.set_num_threads(1)
        self.features = InceptionFeatures(weights_dir, device=device)
        self.size_px, self.max_pixels = size_px, max_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and the feature, of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        found = [np.zeros((0, LAST_WIDTH), dtype=np.float32)]
        found += [self.features(pixels) for pixels in _batches(table, self.size_px, self.max_pixels)]
        feature = np.concatenate(found)
        return to_table(to_columns(table, ("image_id", "emotion")) | {"inception_feature": feature})


class JudgeActor:
    """Images to the probabilities of their likeliest scene and object."""

    def __init__(self, weights_dir: str, size_px: int, max_pixels: int, device: str = "cpu") -> None:
        """Load both networks; images are brought to `size_px` first, real and generated ones alike."""
        torch.set_num_threads(1)
        self.judges = SemanticJudges(weights_dir, device=device)
        self.size_px, self.max_pixels = size_px, max_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and both probabilities (float64), of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        found = [np.zeros((2, 0))]
        found += [np.stack(self.judges(pixels)) for pixels in _batches(table, self.size_px, self.max_pixels)]
        scene, object_ = np.concatenate(found, axis=1)
        judged = to_table(to_columns(table, ("image_id", "emotion")))
        judged = judged.append_column("scene_probability", pa.array(scene))
        return judged.append_column("object_probability", pa.array(object_))


def _batches(table: pa.Table, size_px: int, max_pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures (B, size_px, size_px, 3): all of a shard at once would take gigabytes."""
    for start in range(0, table.num_rows, BATCH):
        images = table["image"].slice(start, BATCH).to_pylist()
        yield np.stack([to_square(decode_rgb(data, max_pixels), size_px) for data in images])
