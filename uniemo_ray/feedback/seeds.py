"""Seeds that depend on names, not on order: the same on every machine and in every process."""

from hashlib import blake2b

import numpy as np


def stable_seed(seed: int, key: str) -> int:
    """Seed in [0, 2^63) of the thing called `key` in a run seeded with `seed`."""
    digest = blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stable_rng(seed: int, key: str) -> np.random.Generator:
    """Generator of the thing called `key` in a run seeded with `seed`."""
    return np.random.default_rng(stable_seed(seed, key))
