"""The actor that runs a finished model folder's understanding."""

import numpy as np
import pyarrow as pa
import torch

from uniemo_ray.data.images import RGB, decode_rgb
from uniemo_ray.distributed.shards.actors.tables import to_columns, to_table
from uniemo_ray.inference.uniemo import UnderstandResult, UniEmo
from uniemo_ray.read_ahead import read_batches

MICRO_BATCH = 32


class UnderstandActor:
    """Images to the probabilities of the model's own classes, with their label."""

    def __init__(self, model: str, max_pixels: int, device: str = "cpu") -> None:
        """Load a model folder, local or `s3://`, without its diffusion model."""
        torch.set_num_threads(1)
        self.model = UniEmo.from_pretrained(model, device=device, with_diffusion=False)
        self.max_pixels = max_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and `probabilities` (C numbers)."""
        seen: list[UnderstandResult] = []
        images = (value.as_py() for value in table["image"])
        for squares in read_batches(images, self._read, size=MICRO_BATCH):
            seen += self.model.understand_squares(squares, names=0, micro_batch=MICRO_BATCH)
        classes = len(self.model.parts.labels.labels)
        found = np.array([list(one.emotions.values()) for one in seen]).reshape(len(seen), classes)
        return to_table(to_columns(table, ("image_id", "emotion")) | {"probabilities": found})

    def _read(self, image: bytes) -> RGB:
        return self.model.preprocess.square(decode_rgb(image, self.max_pixels))
