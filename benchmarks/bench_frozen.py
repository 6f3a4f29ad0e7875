"""How much of its time a frozen pass computes, when decoding takes nearly as long as the model.

Two thousand pictures go through the extractor of the features; the model sleeps for each micro-batch, as it
would on a GPU. Once with decoding ahead in threads, once decoding and computing in turn.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniemo_ray.inference import scorer
from uniemo_ray.inference.scorer import FeatureExtractor
from uniemo_ray.models.clip import load_clip


def picture(side_px: int) -> bytes:
    """A JPEG of smooth noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side_px, side_px)).save(buffer, format="JPEG")
    return buffer.getvalue()


def in_turn(items, read: Callable, *, ahead: int):  # type: ignore[no-untyped-def]
    """As it was: all pictures of a shard, then the model."""
    return [read(item) for item in items]


def busy_share(extractor: FeatureExtractor, images: list[bytes], *, shard: int, forward_s: float) -> float:
    """Share of the time in which the model computes."""
    busy = 0.0

    def forward(clip: object, pixels: Tensor) -> Tensor:
        nonlocal busy
        begun = time.monotonic()
        time.sleep(forward_s * len(pixels))
        busy += time.monotonic() - begun
        return torch.zeros(len(pixels), 8)

    scorer.image_features = forward
    started = time.monotonic()
    for start in range(0, len(images), shard):
        extractor({"image": np.array(images[start : start + shard], dtype=object)})
    return busy / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shard", type=int, default=500, help="images of a shard")
    parser.add_argument("--side-px", type=int, default=512)
    parser.add_argument("--forward-ms", type=float, default=10, help="sleep for each image")
    options = parser.parse_args()
    images = [picture(options.side_px)] * options.images
    extractor = FeatureExtractor(load_clip("tiny"))
    begun = time.process_time()
    for image in images[:20]:
        extractor.read(image)
    decode_ms = 1000 * (time.process_time() - begun) / 20
    ahead = scorer.read_ahead
    for name, reader in (("in turn", in_turn), ("ahead", ahead)):
        scorer.read_ahead = reader
        share = busy_share(extractor, images, shard=options.shard, forward_s=options.forward_ms / 1000)
        print(f"decoding {name}: the model is busy {share:.3f} of the time ({decode_ms:.0f} ms to decode)")


if __name__ == "__main__":
    main()
