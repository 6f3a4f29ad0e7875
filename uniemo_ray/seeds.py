"""Seeds and ids as stable hashes, so that randomness depends on names and not on order."""

import hashlib
from collections.abc import Iterable

import numpy as np


def hash_seed(*parts: object) -> int:
    """A seed in 0..2**63-1 from the texts of `parts`; it is the same on every machine and in every process.

    `hash_seed(a, b)` and `named_seed(a, b)` differ: each hashes another text.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def named_seed(seed: int, key: str) -> int:
    """The seed in 0..2**63-1 of the image or draw called `key` in a run seeded with `seed`.

    The seeds of planned images come from here. They never change, so that old images can be made again.
    """
    return hash_seed(f"{seed}/{key}")


def named_rng(seed: int, key: str) -> np.random.Generator:
    """A generator of random numbers for the draw called `key` in a run seeded with `seed`."""
    return np.random.default_rng(named_seed(seed, key))


def id_hashes(image_ids: Iterable[object]) -> np.ndarray:
    """8-byte hashes of image ids, uint64 (n,). Among a million ids a collision has chance 3e-8."""
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in image_ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)
