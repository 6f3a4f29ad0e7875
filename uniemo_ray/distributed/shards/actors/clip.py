"""Actors that need CLIP alone: features and scores."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import MAX_PIXELS
from uniemo_ray.distributed.shards.actors.tables import LABELS, conform, to_columns, to_table
from uniemo_ray.feedback.schema import scores_schema
from uniemo_ray.inference.heads import ScorerHeads
from uniemo_ray.inference.scorer import FeatureExtractor, Scorer
from uniemo_ray.models.clip import load_clip
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.name_embeddings import embed_table

SCORERS_FILE = "scorers.safetensors"


class FeatureActor:
    """Images to frozen CLIP features, with their labels."""

    def __init__(
        self,
        clip: str,
        pretrained: str | None = None,
        max_pixels: int = MAX_PIXELS,
        device: str = "cpu",
    ) -> None:
        """Load CLIP; images with more than `max_pixels` are refused."""
        parts = load_clip(clip, pretrained=pretrained)
        self.extractor = FeatureExtractor(parts, device=device, max_pixels=max_pixels)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns LABELS and `clip_feature`, of rows that have an image."""
        table = table.filter(pc.is_valid(table["image"]))
        return to_table(self.extractor(to_columns(table, (*LABELS, "image"))))


class NameActor:
    """Names of the attribute base to their text embeddings."""

    def __init__(self, clip: str, pretrained: str | None = None, device: str = "cpu") -> None:
        """Load CLIP."""
        self.clip = load_clip(clip, pretrained=pretrained)
        self.clip.model.to(device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns `name`, `embedding` and `verbatim`."""
        return embed_table(self.clip, table["name"].to_pylist())


def load_heads(store: Store) -> ScorerHeads:
    """The scorers that the step of that name left in its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SCORERS_FILE
        path.write_bytes(store.read_bytes(SCORERS_FILE))
        return ScorerHeads.load(path)


class ScoreActor:
    """Images, real or generated, to score rows."""

    def __init__(self, clip: str, heads: str, pretrained: str | None = None, device: str = "cpu") -> None:
        """Load CLIP and the scorers from `heads`, the URI of their folder."""
        self.scorer = Scorer(
            load_clip(clip, pretrained=pretrained), load_heads(open_store(heads)), device=device
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of `scores_schema`."""
        columns = to_columns(table, ("image_id", "emotion", "image", "reason"))
        return conform(self.scorer(columns), scores_schema(len(self.scorer.heads.labels)))

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        """Rows of `scores_schema` without scores."""
        reasons = pa.array([reason] * table.num_rows, pa.string())
        return self(table.drop_columns(["reason"]).append_column("reason", reasons))
