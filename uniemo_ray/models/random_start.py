"""Where fresh weights come from: a random stream of its own for each part of the network."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from uniemo_ray.seeds import hash_seed

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def own_stream(seed: int, part: str) -> Iterator[None]:
    """Draw what is made inside from the stream of (seed, part) and leave torch's own stream alone.

    So the start of one part does not depend on which other parts there are. Two networks that differ in one
    part, as the rows of an ablation do, start alike in all others.

    Args:
        seed: of the network.
        part: name of the part.
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):  # torch's stream is that of the whole process
        torch.default_generator.manual_seed(hash_seed(seed, "start", part))
        yield


def given_or_drawn(seed: int | None) -> int:
    """The seed; None draws one from torch's own stream, so that `torch.manual_seed` decides it."""
    return int(torch.randint(2**62, (), device="cpu").item()) if seed is None else seed
