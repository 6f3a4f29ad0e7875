"""How many and which kept images join the real ones in the next round (table VIII)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from uniemo_ray.seeds import named_seed


@dataclass(frozen=True)
class Mixture:
    """The synthetic part of a mixed training set; the real part is always whole."""

    synthetic_ids: tuple[str, ...]
    """Chosen images, ascending."""
    real: int
    """Number of real images."""
    wanted: int
    """Synthetic images that make up the asked share."""
    available: int
    """Kept images to choose from."""
    fraction: float
    """Share of synthetic images that came out: below the asked one when too few were kept."""


def mix(real_ids: Sequence[str], kept_ids: Sequence[str], *, fraction: float, seed: int) -> Mixture:
    """Choose `round(fraction / (1 - fraction) * len(real_ids))` of the kept images, or all there are.

    The choice depends on the seed and the ids alone, not on their order; each image has a fixed
    priority, so a larger fraction keeps what a smaller one chose.

    Args:
        real_ids: ids of all real training images.
        kept_ids: ids of the images that passed the filter.
        fraction: wanted share of synthetic images in the mixed set, in [0, 1).
        seed: run seed.

    Raises:
        ValueError: for a fraction outside [0, 1), a repeated id, or an id that is both real and kept.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"synthetic fraction must lie in [0, 1), got {fraction}")
    kept = set(kept_ids)
    if len(kept) != len(kept_ids):
        raise ValueError(
            f"kept images hold {len(kept_ids) - len(kept)} repeated ids: each may occur only once"
        )
    if shared := kept.intersection(real_ids):
        raise ValueError(f"{len(shared)} ids are both real and generated, for example {min(shared)!r}")
    share = Fraction(repr(fraction))
    wanted = round(share / (1 - share) * len(real_ids))
    by_priority = sorted(kept, key=lambda image_id: (named_seed(seed, f"mix/{image_id}"), image_id))
    chosen = tuple(sorted(by_priority[:wanted]))
    total = len(real_ids) + len(chosen)
    return Mixture(chosen, len(real_ids), wanted, len(kept), len(chosen) / total if total else 0.0)
