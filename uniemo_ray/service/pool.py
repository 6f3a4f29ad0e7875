"""Replicas of one Ray Serve deployment: number, size and batches."""

from pydantic import Field, field_validator
from ray._private.label_utils import validate_label_selector

from uniemo_ray.settings_base import Settings


class Pool(Settings):
    """How many replicas a deployment has, what each reserves, and how it batches."""

    min_replicas: int = Field(1, ge=1)
    """Fewest replicas."""
    max_replicas: int = Field(1, ge=1)
    """Most replicas that autoscaling starts."""
    num_cpus: float = Field(0.5, ge=0)
    """CPUs that a replica reserves."""
    num_gpus: float = Field(0, ge=0)
    """GPUs that a replica reserves."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray labels that the machine of a replica must have, such as `{uniemo/pool: serve}`."""
    batch_size: int = Field(8, ge=1)
    """Most images that are taken from the queue as one batch."""
    batch_wait_s: float = Field(0.0, ge=0)
    """How long a batch waits for more images. While a replica works, images gather in any case."""
    batches_held: int = Field(8, ge=1)
    """Most batches that are assigned to a replica at a time. Serve's router looks for a free replica every
    half second, so a replica with few batches would be idle in between."""
    queue: int = Field(64, ge=1)
    """Most calls that wait per endpoint replica. Further ones are answered with 503."""
    models_per_replica: int = Field(3, ge=1)
    """Most models beside `default` that a replica keeps loaded. The least recently used one is unloaded."""

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if problem := validate_label_selector(labels):
            raise ValueError(" ".join(problem.split()))
        return labels


class GenerationPool(Pool):
    """The replicas for generation, whose calls take a second or more.

    An image is answered when its whole batch is done, which holds images of equal settings. A larger batch
    delays finished images. A smaller one leaves the model idle more often, for about ten milliseconds.
    """

    batch_size: int = Field(4, ge=1)
    """Most images that are taken from the queue as one batch; a multiple of the micro-batch."""
    batches_held: int = Field(4, ge=1)
    """Most batches that are assigned to a replica at a time."""
