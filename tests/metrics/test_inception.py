"""The network behind true FID."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import inception

from uniemo_ray.metrics import inception as own_inception
from uniemo_ray.metrics.inception import InceptionFeatures, make_inception, squashed


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


def test_every_block_with_a_pool_is_ours_and_the_last_one_pools_otherwise() -> None:
    with torch.device("meta"):
        net = make_inception()
    blocks = {name: block for name, block in net.named_children() if name.startswith("Mixed")}
    pooled = [name for name, block in blocks.items() if hasattr(block, "branch_pool")]
    assert len(pooled) == 9
    assert {type(blocks[name]).__module__ for name in pooled} == {own_inception.__name__}
    assert [name for name, block in blocks.items() if getattr(block, "is_last", False)] == ["Mixed_7c"]
    assert not net.training


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


@pytest.fixture
def inception_dir(net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights cannot have the published digest, so theirs takes its place."""
    path = tmp_path / "plain.pth"
    torch.save(net.state_dict(), path)
    own = path.rename(tmp_path / f"pt_inception-2015-12-05-{sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    monkeypatch.setattr(own_inception, "INCEPTION_FILE", own.name)
    return tmp_path


def pool3(net: inception.Inception3, x: torch.Tensor) -> np.ndarray:
    """What torchmetrics takes of the network, for pictures (B, 3, 299, 299) of 0 to 255."""
    caught: list[torch.Tensor] = []
    hook = net.avgpool.register_forward_hook(lambda module, inputs, output: caught.append(output))
    with torch.no_grad():
        net((x.float() - 128) / 128)
    hook.remove()
    return caught[0].flatten(1).numpy()


def test_features_are_pool3_of_values_around_128(net: inception.Inception3, inception_dir: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 299, 299, 3), dtype=np.uint8)
    features = InceptionFeatures(inception_dir)(pixels)
    assert features.shape == (2, 2048)
    expected = pool3(net, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_the_network_and_its_pictures_are_on_the_device_that_was_asked_for(inception_dir: Path) -> None:
    features = InceptionFeatures(inception_dir, device="meta")
    assert {value.device.type for value in features.net.state_dict().values()} == {"meta"}
    assert features.device == "meta"


def test_a_network_that_is_filled_from_a_file_draws_no_weights(recwarn: pytest.WarningsRecorder) -> None:
    with torch.device("meta"):
        make_inception()
    assert not [warning for warning in recwarn if "init" in str(warning.message)]


def test_only_pictures_of_the_networks_size_are_taken(inception_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"expected pictures \(B, 299, 299, 3\), got \(1, 32, 32, 3\)"):
        InceptionFeatures(inception_dir)(np.zeros((1, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(512, 512), (640, 360), (301, 900), (64, 48)])
def test_squashed_is_the_resize_of_the_published_script(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    expected = np.asarray(transforms.Resize((299, 299))(Image.fromarray(rgb)))
    np.testing.assert_array_equal(squashed(rgb), expected)
    aliased = nn.functional.interpolate(
        torch.from_numpy(rgb).permute(2, 0, 1)[None].float(), (299, 299), mode="bilinear", antialias=False
    )[0].permute(1, 2, 0)
    gap = np.abs(aliased.numpy() - expected).mean()
    assert gap > 15 if max(size) > 299 else gap < 1  # the filter shows only where pictures shrink


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
    with pytest.raises(ValueError, match=r"does not fit the FID network: .*Missing key") as error:
        InceptionFeatures(tmp_path)
    assert "\n" not in str(error.value)
