"""Actors of the baselines of understanding: image features or images to logits."""

# M rows, B micro-batch, C classes

import numpy as np
import pyarrow as pa
import torch

from uniemo_ray.baselines.understanding.build import load_network
from uniemo_ray.baselines.understanding.features import FeatureClassifier
from uniemo_ray.baselines.understanding.settings import BaselineSettings
from uniemo_ray.data.images import RGB, decode_rgb
from uniemo_ray.distributed.shards.actors.tables import to_columns, to_table
from uniemo_ray.metrics.score_sums import matrix
from uniemo_ray.read_ahead import read_batches
from uniemo_ray.store.filesystem import open_store

CLASSIFIER_FILE = "classifier.safetensors"
KEPT = ("image_id", "emotion")
MICRO_BATCH = 32


class FeatureClassifierActor:
    """Frozen CLIP features to logits."""

    def __init__(self, folder: str, device: str = "cpu") -> None:
        """Load the classifier from the URI of its folder."""
        torch.set_num_threads(1)
        stored = open_store(folder).read_bytes(CLASSIFIER_FILE)
        self.classifier = FeatureClassifier.from_bytes(stored).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and `logits` (C numbers)."""
        features = torch.from_numpy(np.require(matrix(table["clip_feature"]), requirements="W"))
        logits = self.classifier(features.float().to(self.device))
        return to_table(to_columns(table, KEPT) | {"logits": logits.cpu().numpy()})


class NetworkActor:
    """Images to logits, by a network that a baseline has trained."""

    def __init__(self, settings: BaselineSettings, max_pixels: int, device: str = "cpu") -> None:
        """Build the network and load its weights; images with more than `max_pixels` are refused."""
        torch.set_num_threads(1)
        built = load_network(settings)
        self.network, self.preprocess = built.network.to(device), built.preprocess
        self.max_pixels, self.device = max_pixels, device

    @torch.no_grad()
    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and `logits` (C numbers)."""
        found: list[torch.Tensor] = []
        images = (value.as_py() for value in table["image"])
        for squares in read_batches(images, self._read, size=MICRO_BATCH):
            # always as many: a layer gives other bits at another batch size
            padded = [*squares, *[squares[-1]] * (MICRO_BATCH - len(squares))]
            logits = self.network(self.preprocess.pixels(padded).to(self.device))
            found.append(logits[: len(squares)].float().cpu())
        columns = to_columns(table, KEPT)
        return to_table(columns | {"logits": torch.cat(found).numpy()} if found else columns)

    def _read(self, image: bytes) -> RGB:
        return self.preprocess.square(decode_rgb(image, self.max_pixels))
