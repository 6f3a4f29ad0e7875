"""Networks that train as a whole: CLIP's image tower, and ResNet-101, each with a fresh linear layer."""

# B images, S image side in pixels, C classes

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet101

from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.metrics.resnet import CROP_PX, MEAN, RESIZE_PX, STD
from uniemo_ray.metrics.weights import find_weights, load_weights
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.text import one_line

RESNET_FILE = "resnet101-63fe2227.pth"
"""torchvision's file of ResNet-101's first ImageNet weights (IMAGENET1K_V1)."""
RESNET_WIDTH = 2048


class TowerClassifier(nn.Module):
    """CLIP's image tower, all of which trains, and a linear layer on its image feature."""

    def __init__(self, clip: ClipParts, classes: int) -> None:
        super().__init__()
        self.tower = clip.model.visual.requires_grad_(True)
        self.head = nn.Linear(self.tower.output_dim, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, 3, S, S)."""
        return self.head(self.tower(pixels))  # type: ignore[no-any-return]


class ResNetClassifier(nn.Module):
    """ResNet-101 with a fresh last layer; its batch norms keep ImageNet's statistics."""

    def __init__(self, weights_dir: str | Path | None, classes: int) -> None:
        """Load ImageNet's weights.

        Raises:
            ValueError: the file is missing, damaged or of another network.
        """
        super().__init__()
        self.tower = load_resnet(weights_dir)
        self.tower.fc = nn.Identity()
        self.tower.requires_grad_(True)
        self.head = nn.Linear(RESNET_WIDTH, classes)

    def train(self, mode: bool = True) -> "ResNetClassifier":
        """Batch norms stay as in evaluation."""
        super().train(mode)
        for module in self.tower.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, 3, 224, 224)."""
        return self.head(self.tower(pixels))  # type: ignore[no-any-return]


def load_resnet(weights_dir: str | Path | None) -> nn.Module:
    """ResNet-101 of ImageNet's 1,000 classes, in evaluation mode.

    Raises:
        ValueError: the file is missing, damaged or of another network.
    """
    path = find_weights(weights_dir, RESNET_FILE, metric="the baseline resnet")
    state = load_weights(path)
    with torch.device("meta"):
        net = resnet101()
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit ResNet-101: {one_line(error)[:300]}") from None
    return net.eval()  # type: ignore[no-any-return]  # torchvision has no types


def resnet_preprocess() -> Preprocess:
    """How ResNet-101 was evaluated on ImageNet: shorter side 256, centre crop 224."""
    return Preprocess(size_px=CROP_PX, resize_px=RESIZE_PX, resample="bilinear", mean=MEAN, std=STD)
