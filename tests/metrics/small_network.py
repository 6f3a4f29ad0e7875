"""A small network in the place of Inception, and torchmetrics' way of feeding one."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from uniemo_ray.distributed.shards.actors import published as actors
from uniemo_ray.metrics import inception

WIDTH = 6


class SmallNetwork(nn.Module):
    """Sees fine structure, and its features are few."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3, stride=2)
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).square().mean(dim=(2, 3)) + self.conv(x)[..., 10:20, 10:20].mean(dim=(2, 3))


class AsTorchmetrics(nn.Module):
    """What torchmetrics does to pictures of [0, 1] before and in its own Inception, for another network."""

    num_features = WIDTH

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(((x * 255).byte().float() - 128) / 128)


def put_small_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SmallNetwork:
    """Put it into a folder of weights, where it passes for the published file."""
    torch.manual_seed(0)
    net = SmallNetwork().eval()
    path = folder / "plain.pth"
    torch.save(net.state_dict(), path)
    own = path.rename(folder / f"pt_inception-2015-12-05-{sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    monkeypatch.setattr(inception, "INCEPTION_FILE", own.name)
    monkeypatch.setattr(inception, "make_inception", lambda: SmallNetwork().eval())
    monkeypatch.setattr(actors, "LAST_WIDTH", WIDTH)
    return net
