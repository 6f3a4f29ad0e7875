"""Random weights in the files of published networks."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torchvision.models import alexnet, resnet50

from uniemo_ray.metrics import perceptual, resnet
from uniemo_ray.metrics.resnet import PLACES_FILE


@pytest.fixture(scope="module")
def random_alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random AlexNet weights in torchvision's file format, without the classifier, which no metric reads."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("alexnet")
    path = folder / "plain.pth"
    weights = alexnet(weights=None).features.state_dict(prefix="features.")
    torch.save(weights, path)
    return path.rename(folder / f"alexnet-owt-{sha256(path.read_bytes()).hexdigest()[:8]}.pth").parent


@pytest.fixture
def alexnet_dir(random_alexnet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights cannot have the published digest, so theirs takes its place."""
    (own,) = random_alexnet.iterdir()
    monkeypatch.setattr(perceptual, "ALEXNET_FILE", own.name)
    return random_alexnet


@pytest.fixture(scope="module")
def random_resnets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both files; 100 MB each, gone after the module."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in resnet50(num_classes=365).state_dict().items()}
    torch.save({"arch": "resnet50", "epoch": 90, "state_dict": state}, folder / PLACES_FILE)
    plain = folder / "plain"
    torch.save(resnet50().state_dict(), plain)
    plain.rename(folder / f"resnet50-{sha256(plain.read_bytes()).hexdigest()[:8]}.pth")
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def resnet_dir(random_resnets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights cannot have the published digest, so theirs takes its place."""
    (own,) = random_resnets.glob("resnet50-*.pth")
    monkeypatch.setattr(resnet, "IMAGENET_FILE", own.name)
    return random_resnets
