"""The replicas of one kind of work."""

from pydantic import Field

from uniemo_ray.config import Settings


class Pool(Settings):
    """How many replicas, how large, and how they batch."""

    min_replicas: int = Field(1, ge=1)
    """Replicas when there is little to do."""
    max_replicas: int = Field(1, ge=1)
    """Replicas when there is much to do."""
    num_cpus: float = Field(0.5, ge=0)
    """CPUs that a replica reserves."""
    num_gpus: float = Field(0, ge=0)
    """GPUs that a replica reserves."""
    batch_size: int = Field(8, ge=1)
    """Images that are taken together from the queue."""
    batch_wait_s: float = Field(0.0, ge=0)
    """How long a first image waits for others; while a replica works, they gather anyway."""
    batches_held: int = Field(8, ge=1)
    """Batches that a replica has taken at most: where one comes back faster than Serve's router looks again
    for a free replica (half a second), fewer leave the replica idle."""
    queue: int = Field(64, ge=1)
    """Calls that wait per endpoint replica; further ones are answered with 503."""
    models_per_replica: int = Field(3, ge=1)
    """Models beside `default` that a replica keeps loaded; the least used one gives way."""


class GenerationPool(Pool):
    """The replicas for generation, whose calls take a second or more.

    An image is answered with its batch: more micro-batches in one keep finished images back, fewer leave the
    painter idle more often, for a hundredth of a second.
    """

    batch_size: int = Field(4, ge=1)
    """Images that are taken together from the queue; a multiple of the micro-batch."""
    batches_held: int = Field(4, ge=1)
    """Batches that a replica has taken at most."""
