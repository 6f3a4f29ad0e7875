"""How many and which kept images join the real ones in the next round (table VIII)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import nsmallest
from typing import NamedTuple

from uniemo_ray.seeds import named_seed


class Kept(NamedTuple):
    """A generated image that passed the filter."""

    image_id: str
    shard: str
    """Name of its shard."""


@dataclass(frozen=True)
class Mixture:
    """The synthetic part of a mixed training set; the real part is always whole."""

    synthetic: tuple[Kept, ...]
    """Chosen images, by shard and id."""
    real: int
    """Number of real images."""
    wanted: int
    """Synthetic images that make up the asked share."""
    available: int
    """Kept images to choose from."""
    fraction: float
    """Share of synthetic images that came out: below the asked one when too few were kept."""


def mix(real: int, kept: Iterable[Kept], *, fraction: float, seed: int) -> Mixture:
    """Choose `round(fraction / (1 - fraction) * real)` of the kept images, or all there are.

    The choice depends on the seed and the ids alone, not on their order; each image has a fixed
    priority, so a larger fraction keeps what a smaller one chose. Only the chosen images are held.

    Args:
        real: number of real training images.
        kept: images that passed the filter.
        fraction: wanted share of synthetic images in the mixed set, in [0, 1).
        seed: run seed.

    Raises:
        ValueError: for a fraction outside [0, 1), or an id that is chosen twice.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"synthetic fraction must lie in [0, 1), got {fraction}")
    share = Fraction(repr(fraction))
    wanted, available = round(share / (1 - share) * real), 0

    def by_priority() -> Iterator[tuple[int, Kept]]:
        nonlocal available
        for image in kept:
            available += 1
            yield named_seed(seed, f"mix/{image.image_id}"), image

    best = nsmallest(wanted, by_priority())
    chosen = sorted((image for _, image in best), key=lambda image: (image.shard, image.image_id))
    if repeated := len(chosen) - len({image.image_id for image in chosen}):
        raise ValueError(f"kept images hold {repeated} repeated ids: each may occur only once")
    total = real + len(chosen)
    return Mixture(tuple(chosen), real, wanted, available, fraction=len(chosen) / total if total else 0.0)


def check_apart(chosen: Iterable[Kept], real_ids: Iterable[Sequence[str]]) -> None:
    """Raise ValueError for a chosen image whose id is that of a real one; `real_ids` come part by part."""
    names = {image.image_id for image in chosen}
    for part in real_ids:
        if shared := names.intersection(part):
            raise ValueError(f"{len(shared)} ids are both real and generated, for example {min(shared)!r}")
