"""Seeds and ids as stable hashes, so that randomness depends on names and not on order."""

import hashlib
from collections.abc import Iterable

import numpy as np


def stable_seed(*parts: object) -> int:
    """A seed in 0..2**63-1 from the text of `parts`; the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def id_hashes(image_ids: Iterable[object]) -> np.ndarray:
    """8-byte hashes of image ids, uint64 (n,). Among a million ids a collision has chance 3e-8."""
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in image_ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)
