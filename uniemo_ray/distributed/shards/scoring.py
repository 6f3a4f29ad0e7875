"""What scores generated images: the same on an actor that generates them and on one that reads them."""

from dataclasses import dataclass

import pyarrow as pa

from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.distributed.shards.table_actor import plan_beside
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER
from uniemo_ray.inference.scorer import Scorer
from uniemo_ray.models.clip import load_clip
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.shards import committed

SCORES_FOLDER = "scores"
SCORING_THREADS = 1
"""CPU threads of a scorer: another number gives other bits."""


@dataclass(frozen=True)
class Scoring:
    """Which scorers to use."""

    clip: str
    """Frozen CLIP, a name for `load_clip`."""
    pretrained: str | None
    heads: str
    """URI of the scorers' folder, readable on every worker."""
    version: str
    """Fingerprint of the scorers."""

    @property
    def plan(self) -> str:
        """What decides the scores of given images."""
        return fingerprint([self.clip, self.pretrained, self.version])

    def load(self, device: str) -> Scorer:
        """The scorer on a torch device."""
        clip = load_clip(self.clip, pretrained=self.pretrained)
        heads = load_heads(open_store(self.heads))
        return Scorer(clip, heads, threads=SCORING_THREADS, device=device)


def scored_already(images: Store, scoring: Scoring) -> set[str]:
    """Names of the shards `scores/part-NNNNN` that these scorers have made beside the images of a store."""
    plans = {
        name.rpartition("/")[2]: entry.plan_hash
        for name, entry in committed(images, f"{IMAGES_FOLDER}/").items()
    }
    return {
        name
        for name, entry in committed(images, f"{SCORES_FOLDER}/").items()
        if entry.plan_hash == plan_beside(plans.get(name.rpartition("/")[2], ""), scoring.plan)
    }


class HandOn:
    """Rows in, the same rows out."""

    def __init__(self, *, device: str) -> None:
        """Every actor is given a device; this one needs none."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table itself, without what its file says of a plan."""
        return table.replace_schema_metadata(None)
