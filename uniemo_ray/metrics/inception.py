"""Inception-v3 pool3 features for FID, from the published TensorFlow weights in PyTorch form.

The network is torchvision's with the three differences of the TensorFlow graph that those weights were
trained in: average pools that do not count the padding, a max pool in the last block, 1008 classes.
"""

# B batch

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import inception

from uniemo_ray.data.images import RGB
from uniemo_ray.metrics.weights import find_weights, load_weights
from uniemo_ray.text import one_line

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
"""The file of pytorch-fid."""
SIZE_PX = 299
CLASSES = 1008
LAST_WIDTH = 2048


class _BlockA(inception.InceptionA):  # type: ignore[misc]  # torchvision has no types
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_average(x))]


class _BlockC(inception.InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_average(x))]


class _BlockE(inception.InceptionE):  # type: ignore[misc]
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.is_last = in_channels == LAST_WIDTH

    def _forward(self, x: Tensor) -> list[Tensor]:
        pooled = (
            nn.functional.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.is_last else _average(x)
        )
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]


def _average(x: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def make_inception() -> inception.Inception3:
    """The FID network with random weights, in evaluation mode; its output is the pool3 feature."""
    blocks = [
        inception.BasicConv2d,
        _BlockA,
        inception.InceptionB,
        _BlockC,
        inception.InceptionD,
        _BlockE,
        inception.InceptionAux,
    ]
    net = inception.Inception3(
        num_classes=CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False
    )
    return net.eval()


def squashed(rgb: RGB) -> RGB:
    """The whole picture (H, W, 3) at the network's size, (299, 299, 3); what is no square is squashed.

    Pillow's bilinear filter smooths where it shrinks. Without that, FID depends on the filter (Parmar et al.,
    CVPR 2022), so both protocols resize like this. The published one is torchvision's `Resize((299, 299))`.
    """
    return np.asarray(Image.fromarray(rgb).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))


class InceptionFeatures:
    """Pictures in, pool3 features (B, 2048) out."""

    def __init__(self, weights_dir: str | Path | None, *, device: str = "cpu") -> None:
        """Load the weights onto a torch device.

        Raises:
            ValueError: when the file is missing, damaged or of another network.
        """
        path = find_weights(weights_dir, INCEPTION_FILE, metric="fid")
        self.net = make_inception()
        try:
            self.net.load_state_dict(load_weights(path))
        except RuntimeError as error:
            reason = one_line(error)[:300]
            raise ValueError(f"{path} does not fit the FID network: {reason}") from None
        self.net.fc = nn.Identity()
        self.net.to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (B, 2048) of pictures (B, 299, 299, 3).

        Values enter as torchmetrics and torch-fidelity feed them, (x - 128) / 128.

        Raises:
            ValueError: for pictures of another size.
        """
        if pixels.shape[1:] != (SIZE_PX, SIZE_PX, 3):
            raise ValueError(f"expected pictures (B, {SIZE_PX}, {SIZE_PX}, 3), got {pixels.shape}")
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        return np.asarray(self.net((x - 128) / 128).cpu().numpy(), dtype=np.float32)
