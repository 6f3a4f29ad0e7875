"""Actors that need published networks: Inception-v3 for FID, both ResNet-50 for Sem-C."""

# M images, B batch

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from uniemo_ray.data.images import RGB, decode_rgb, to_square
from uniemo_ray.distributed.shards.actors.tables import to_columns, to_table
from uniemo_ray.metrics.inception import LAST_WIDTH, InceptionFeatures, squashed
from uniemo_ray.metrics.pictures import as_saved
from uniemo_ray.metrics.resnet import SemanticJudges, cropped
from uniemo_ray.read_ahead import read_batches

BATCH = 16


Source = Literal["real", "generated"]


@dataclass(frozen=True)
class TrainProtocol:
    """How `fid_train` sees pictures: real and generated ones are brought to one square first."""

    size_px: int

    def prepare(self, rgb: RGB) -> RGB:
        """(H, W, 3) to (299, 299, 3)."""
        return squashed(to_square(rgb, self.size_px))


@dataclass(frozen=True)
class PublishedProtocol:
    """How `fid` sees pictures: the whole picture squashed, a generated one after the file that holds it."""

    source: Source

    def prepare(self, rgb: RGB) -> RGB:
        """(H, W, 3) to (299, 299, 3)."""
        return squashed(as_saved(rgb) if self.source == "generated" else rgb)


class InceptionActor:
    """Images to `inception_feature` (2048 numbers), with their emotion."""

    def __init__(
        self,
        weights_dir: str,
        protocol: TrainProtocol | PublishedProtocol,
        max_pixels: int,
        chosen: Sequence[str] | None = None,
        device: str = "cpu",
    ) -> None:
        """Load the weights; of `chosen` image ids alone, if they are given."""
        torch.set_num_threads(1)
        self.features = InceptionFeatures(weights_dir, device=device)
        self.protocol, self.max_pixels = protocol, max_pixels
        self.chosen = None if chosen is None else pa.array(chosen, pa.string())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and the feature, of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        if self.chosen is not None:
            table = table.filter(pc.is_in(table["image_id"], value_set=self.chosen))
        found = [self.features(pixels) for pixels in _batches(table, self.protocol.prepare, self.max_pixels)]
        feature = np.concatenate(found) if found else np.zeros((0, LAST_WIDTH), dtype=np.float32)
        return to_table(to_columns(table, ("image_id", "emotion")) | {"inception_feature": feature})


class JudgeActor:
    """Images to the probabilities of their likeliest scene and object."""

    def __init__(self, weights_dir: str, source: Source, max_pixels: int, device: str = "cpu") -> None:
        """Load both networks; generated images are judged after the file that would hold them."""
        torch.set_num_threads(1)
        self.judges = SemanticJudges(weights_dir, device=device)
        self.source, self.max_pixels = source, max_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and both probabilities (float64), of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        found = [np.zeros((2, 0))]
        found += [np.stack(self.judges(pixels)) for pixels in _batches(table, self.prepare, self.max_pixels)]
        scene, object_ = np.concatenate(found, axis=1)
        judged = to_table(to_columns(table, ("image_id", "emotion")))
        judged = judged.append_column("scene_probability", pa.array(scene))
        return judged.append_column("object_probability", pa.array(object_))

    def prepare(self, rgb: RGB) -> RGB:
        """(H, W, 3) to (224, 224, 3)."""
        return cropped(as_saved(rgb) if self.source == "generated" else rgb)


def _batches(table: pa.Table, prepare: Callable[[RGB], RGB], max_pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Prepared pictures (B, H, H, 3): all of a shard at once would take gigabytes."""
    images = (value.as_py() for value in table["image"])
    for pictures in read_batches(images, lambda data: prepare(decode_rgb(data, max_pixels)), size=BATCH):
        yield np.stack(pictures)
