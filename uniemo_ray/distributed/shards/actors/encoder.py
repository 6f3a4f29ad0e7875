"""The actor that runs a trained encoder."""

import pyarrow as pa

from uniemo_ray.config import MAX_PIXELS
from uniemo_ray.distributed.shards.actors.tables import LABELS, to_columns, to_table
from uniemo_ray.inference.scorer import FeatureExtractor
from uniemo_ray.models.clip import load_clip
from uniemo_ray.training.stage import load_net
from uniemo_ray.training.stage_settings import StageSettings


class EncoderActor:
    """Images to the trained encoder's pooled features and logits, with their labels."""

    def __init__(self, stage: StageSettings, max_pixels: int = MAX_PIXELS, device: str = "cpu") -> None:
        """Build a stage's network and load its weights.

        Images with more than `max_pixels` are refused.
        """
        config = stage.config
        clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
        self.extractor = FeatureExtractor(
            clip,
            net=load_net(stage),
            preprocess=clip.preprocess(config.encoder.preprocess),
            with_frozen=False,
            device=device,
            max_pixels=max_pixels,
        )
        self.dropped = set() if "patch" in config.fusion.members else {"patch_feature"}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns LABELS, `logits` and the pooled features that the encoder has and the fusion uses."""
        columns = self.extractor(to_columns(table, (*LABELS, "image")))
        return to_table({name: c for name, c in columns.items() if name not in self.dropped})
