"""LPIPS: how different images of one emotion look (Zhang et al. 2018).

`lpips_alex` is the published metric (AlexNet, calibrated weights). `lpips_tiny` is the same formula
without calibration on the stages of the shipped recogniser: comparable only with itself.
"""

# M images, B batch of pairs, H height, W width

import warnings
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import torch
from torch import Tensor, nn

from uniemo_ray.data.images import to_unit_range
from uniemo_ray.metrics.pairs import Floats, Ints, Names, PairMean, mean_over_pairs
from uniemo_ray.metrics.pictures import Pictures
from uniemo_ray.metrics.recogniser import Recogniser
from uniemo_ray.metrics.weights import find_weights, has_weights, load_weights
from uniemo_ray.text import one_line

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""torchvision's file of AlexNet's ImageNet weights."""
SLICES = {0: "slice1.0", 3: "slice2.3", 6: "slice3.6", 8: "slice4.8", 10: "slice5.10"}
"""Where lpips keeps AlexNet's convolutions, by their index in torchvision's `features`."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) and (B, 3, H, W) in [-1, 1] to (B,)."""


def tiny_distance(recogniser: Recogniser) -> Distance:
    """LPIPS without calibrated weights, over the recogniser's stages.

    Sum over stages of the spatial mean of |f - g|^2, f and g normalised over channels.
    """
    recogniser.eval()

    def distance(first: Tensor, second: Tensor) -> Tensor:
        total = torch.zeros(len(first))
        for f, g in zip(recogniser.features(first), recogniser.features(second), strict=True):
            gap = (lpips.normalize_tensor(f) - lpips.normalize_tensor(g)).square().sum(dim=1, keepdim=True)
            total = total + lpips.spatial_average(gap, keepdim=False)[:, 0]
        return total

    return distance


def has_alexnet(weights_dir: str | Path | None) -> bool:
    """Whether the user has the file of the published LPIPS."""
    return has_weights(weights_dir, ALEXNET_FILE)


def alex_distance(weights_dir: str | Path | None) -> Distance:
    """The published LPIPS: AlexNet's ImageNet weights from `weights_dir`, calibration from the lpips package.

    Raises:
        ValueError: when the file is missing, damaged or no AlexNet.
    """
    model = load_lpips_alex(weights_dir)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        values: Tensor = model(first, second)
        return values.reshape(-1)

    return distance


def load_lpips_alex(weights_dir: str | Path | None) -> nn.Module:
    """`lpips.LPIPS(net="alex")` built without a download, in evaluation mode.

    Raises:
        ValueError: when the file is missing, damaged or no AlexNet.
    """
    path = find_weights(weights_dir, ALEXNET_FILE, metric="lpips_alex")
    state = load_weights(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*'pretrained'|Arguments other than a weight enum")
        model: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        trunk = {
            f"{to}.{p}": state[f"features.{i}.{p}"] for i, to in SLICES.items() for p in ("weight", "bias")
        }
        model.get_submodule("net").load_state_dict(trunk)
    except (KeyError, RuntimeError) as error:
        reason = one_line(error)[:300]
        raise ValueError(f"{path} holds no torchvision AlexNet: {reason}") from None
    return model.eval()


def lpips_tiny(
    pictures: Pictures,
    image_ids: Names,
    emotions: Names,
    *,
    recogniser: Recogniser,
    pairs: int,
    seed: int,
) -> PairMean:
    """`lpips_tiny` of M pictures: see `perceptual_diversity`."""
    distance = tiny_distance(recogniser)
    return perceptual_diversity(
        pictures, image_ids, emotions, name="lpips_tiny", distance=distance, pairs=pairs, seed=seed
    )


def lpips_alex(
    pictures: Pictures,
    image_ids: Names,
    emotions: Names,
    *,
    weights_dir: str | Path | None,
    pairs: int,
    seed: int,
) -> PairMean:
    """`lpips_alex` of M pictures: see `perceptual_diversity`.

    Raises:
        ValueError: when `weights_dir` lacks AlexNet's weights, naming the file.
    """
    distance = alex_distance(weights_dir)
    return perceptual_diversity(
        pictures, image_ids, emotions, name="lpips_alex", distance=distance, pairs=pairs, seed=seed
    )


def perceptual_diversity(
    pictures: Pictures,
    image_ids: Names,
    emotions: Names,
    *,
    name: str,
    distance: Distance,
    pairs: int,
    seed: int,
    batch_size: int = 64,
) -> PairMean:
    """Mean distance over at most `pairs` seeded pairs within each emotion, then over emotions.

    Args:
        pictures: of the M images; those of a batch of pairs are asked for at a time, and of no image that is
            in no pair.
        image_ids: M distinct ids.
        emotions: M names.
        name: of the metric.
        distance: between two batches of pictures.
        pairs: largest number of pairs per emotion.
        seed: of the pairs.
        batch_size: pairs at a time.

    Raises:
        ValueError: for pictures of another shape, or when no emotion has two images.
    """

    @torch.no_grad()
    def measure(first: Ints, second: Ints) -> Floats:
        parts = []
        for start in range(0, len(first), batch_size):
            rows = slice(start, start + batch_size)
            gap = distance(to_unit_range(pictures(first[rows])), to_unit_range(pictures(second[rows])))
            parts.append(gap.double().numpy())
        return np.concatenate(parts)

    return mean_over_pairs(name, image_ids, emotions, distance=measure, pairs=pairs, seed=seed)
