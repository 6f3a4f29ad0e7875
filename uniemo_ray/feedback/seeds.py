"""Seeds that depend on names, not on order: the same on every machine and in every process."""

import numpy as np

from uniemo_ray.seeds import stable_seed as hash_seed


def stable_seed(seed: int, key: str) -> int:
    """Seed in [0, 2^63) of the thing called `key` in a run seeded with `seed`."""
    return hash_seed(f"{seed}/{key}")


def stable_rng(seed: int, key: str) -> np.random.Generator:
    """Generator of the thing called `key` in a run seeded with `seed`."""
    return np.random.default_rng(stable_seed(seed, key))
