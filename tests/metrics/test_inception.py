"""The network behind true FID."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import inception

from uniemo_ray.metrics import inception as own_inception
from uniemo_ray.metrics.inception import InceptionFeatures, make_inception


@pytest.fixture(scope="module")
def net() -> inception.Inception3:
    torch.manual_seed(0)
    return make_inception()


def test_parameters_are_those_of_the_published_file(net: inception.Inception3) -> None:
    state = net.state_dict()
    assert state["fc.weight"].shape == (1008, 2048)
    assert state["Mixed_7c.branch_pool.conv.weight"].shape == (192, 2048, 1, 1)
    assert not any(name.startswith("AuxLogits") for name in state)
    assert sum(p.numel() for p in net.parameters()) == 23_850_960


@pytest.mark.parametrize("name", ["Mixed_5c", "Mixed_6c", "Mixed_7b"])
def test_average_pools_leave_out_the_padding(net: inception.Inception3, name: str) -> None:
    """Equal to torchvision's block inside the picture; at the border only the pool branch differs."""
    block = getattr(net, name)
    original = type(block).__mro__[1]
    x = torch.rand(1, 288 if name == "Mixed_5c" else 768 if name == "Mixed_6c" else 1280, 7, 7)
    if name == "Mixed_5c":
        x = x[:, :256]
    with torch.no_grad():
        ours, theirs = block(x), original.forward(block, x)
        parts, pool = original._forward(block, x)[:-1], block.branch_pool
        right = pool(nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    width = sum(part.shape[1] for part in parts)
    torch.testing.assert_close(ours[:, :width], theirs[:, :width])
    torch.testing.assert_close(ours[:, width:], right)
    wrong = pool(nn.functional.avg_pool2d(x, 3, 1, 1))
    assert not torch.allclose(ours[:, width:, 0], wrong[:, :, 0])
    torch.testing.assert_close(ours[:, width:, 1:-1, 1:-1], wrong[:, :, 1:-1, 1:-1])


def test_the_last_block_pools_by_maximum(net: inception.Inception3) -> None:
    x = torch.rand(1, 2048, 4, 4)
    with torch.no_grad():
        expected = net.Mixed_7c.branch_pool(nn.functional.max_pool2d(x, 3, 1, 1))
        torch.testing.assert_close(net.Mixed_7c(x)[:, -192:], expected)


def test_features_are_pool3_of_the_resized_picture(
    net: inception.Inception3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plain.pth"
    torch.save(net.state_dict(), path)
    own = path.rename(tmp_path / f"pt_inception-2015-12-05-{sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    monkeypatch.setattr(own_inception, "INCEPTION_FILE", own.name)
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    features = InceptionFeatures(tmp_path)(pixels)
    assert features.shape == (2, 2048)
    x = (
        nn.functional.interpolate(
            torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, size=(299, 299), mode="bilinear"
        )
        * 2
        - 1
    )
    caught: list[torch.Tensor] = []
    hook = net.avgpool.register_forward_hook(lambda module, inputs, output: caught.append(output))
    with torch.no_grad():
        net(x)
    hook.remove()
    np.testing.assert_allclose(features, caught[0].flatten(1).numpy(), rtol=1e-4, atol=1e-5)


def test_without_the_file_fid_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = r"fid needs pt_inception-2015-12-05-6726825d\.pth in evaluation\.weights_dir"
    with pytest.raises(ValueError, match=needs):
        InceptionFeatures(None)
    path = tmp_path / "plain.pth"
    torch.save({"x": torch.zeros(1)}, path)
    own = path.rename(tmp_path / f"pt_inception-2015-12-05-{sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    with pytest.raises(ValueError, match="found no such file"):
        InceptionFeatures(tmp_path)
    monkeypatch.setattr(own_inception, "INCEPTION_FILE", own.name)
    with pytest.raises(ValueError, match="does not fit the FID network") as error:
        InceptionFeatures(tmp_path)
    assert "\n" not in str(error.value)
