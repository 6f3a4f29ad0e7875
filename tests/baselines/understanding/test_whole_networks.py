"""Networks that train as a whole: what they compute, what trains, and what is kept."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet101

from tests.models.tiny import JOINT, pictures, write_clip
from uniemo_ray.baselines.understanding import whole_networks
from uniemo_ray.baselines.understanding.whole_networks import (
    ResNetClassifier,
    TowerClassifier,
    resnet_preprocess,
)


def test_fine_tuning_is_a_linear_layer_on_the_image_feature_and_all_of_it_trains(tmp_path):
    clip = write_clip(tmp_path)
    network = TowerClassifier(clip, 3)
    pixels = pictures(4)
    feature = clip.model.encode_image(pixels)
    expected = torch.stack(
        [network.head.weight @ row + network.head.bias for row in feature]  # of width JOINT
    )
    torch.testing.assert_close(network(pixels), expected, atol=1e-5, rtol=1e-5)
    assert network.head.weight.shape == (3, JOINT)
    network(pixels).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert {name.partition(".")[0] for name, _ in network.named_parameters()} == {"tower", "head"}


@pytest.fixture(scope="module")
def random_resnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file in torchvision's form, 170 MB, gone after the module."""
    torch.manual_seed(0)
    plain = tmp_path_factory.mktemp("resnet") / "plain"
    torch.save(resnet101().state_dict(), plain)
    path = plain.rename(plain.with_name(f"resnet101-{sha256(plain.read_bytes()).hexdigest()[:8]}.pth"))
    yield path
    path.unlink()


@pytest.fixture
def resnet_dir(random_resnet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights cannot have the published digest, so theirs takes its place."""
    monkeypatch.setattr(whole_networks, "RESNET_FILE", random_resnet.name)
    return random_resnet.parent


@pytest.mark.slow
def test_resnet_is_torchvisions_with_another_last_layer(resnet_dir, random_resnet):
    network = ResNetClassifier(resnet_dir, 5).train()
    plain = resnet101()
    plain.load_state_dict(torch.load(random_resnet, weights_only=True))
    plain.fc = network.head
    pixels = pictures(2, side=64)
    before = {name: value.clone() for name, value in network.named_buffers()}
    found = network(pixels)
    with torch.no_grad():
        torch.testing.assert_close(found, plain.eval()(pixels), atol=1e-5, rtol=1e-5)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_resnet_sees_pictures_as_it_was_evaluated():
    seen = resnet_preprocess()
    assert (seen.resize_px, seen.size_px, seen.resample) == (256, 224, "bilinear")


def test_resnet_without_its_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the baseline resnet needs resnet101-63fe2227.pth in .*not set"):
        ResNetClassifier(None, 3)
    with pytest.raises(ValueError, match=r"needs resnet101-63fe2227.pth .* found no such file"):
        ResNetClassifier(tmp_path, 3)
    (tmp_path / "resnet101-63fe2227.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match="is damaged"):
        ResNetClassifier(tmp_path, 3)
