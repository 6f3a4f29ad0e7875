"""The recogniser of EmoSketch's scenes and objects."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.metrics.recogniser import Recogniser, load_recogniser, recognise

STRIDES = (1, 2, 2, 2, 2)
WIDTHS = (32, 48, 96, 128, 128)


@pytest.fixture
def model() -> Recogniser:
    torch.manual_seed(0)
    model = Recogniser(scenes=4, objects=6)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_()
    return model.eval()


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(5, 3, 48, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def plainly(model: Recogniser, pixels: Tensor) -> list[Tensor]:
    """Every stage by hand: a 3 x 3 convolution without bias, the batch norm's constants, ReLU."""
    state, maps = model.state_dict(), []
    for i, stride in enumerate(STRIDES):
        pixels = nn.functional.conv2d(pixels, state[f"stages.{i}.0.weight"], stride=stride, padding=1)
        mean, var, weight, bias = (
            state[f"stages.{i}.1.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        pixels = ((pixels - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)
        maps.append(pixels)
    return maps


def test_five_stages_halve_the_picture_four_times(model: Recogniser, pixels: Tensor) -> None:
    with torch.no_grad():
        found, expected = model.features(pixels), plainly(model, pixels)
    assert [tuple(one.shape) for one in found] == [
        (5, width, 48 // 2**i, 32 // 2**i) for i, width in enumerate(WIDTHS)
    ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not [name for name in model.state_dict() if name.startswith("stages") and name.endswith("0.bias")]


def test_the_heads_read_the_mean_and_the_largest_value_of_each_channel(
    model: Recogniser, pixels: Tensor
) -> None:
    state = model.state_dict()
    with torch.no_grad():
        found, last = model(pixels), plainly(model, pixels)[-1]
    pooled = torch.cat([last.flatten(2).mean(dim=2), last.flatten(2).max(dim=2).values], dim=1)
    for head, logits in (("scene_head", found.scene), ("object_head", found.object)):
        expected = pooled @ state[f"{head}.weight"].T + state[f"{head}.bias"]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert (found.scene.shape, found.object.shape) == ((5, 4), (5, 6))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_names_and_probabilities_do_not_depend_on_the_batches(
    model: Recogniser, pixels: Tensor, batch_size: int
) -> None:
    seen: list[int] = []
    model.register_forward_hook(lambda module, given, result: seen.append(len(given[0])))
    found = recognise(model, pixels, batch_size=batch_size)
    assert max(seen) == min(batch_size, 5)
    assert sum(seen) == 5
    with torch.no_grad():
        logits = model(pixels)
    for index, probability, each in (
        (found.scene, found.scene_probability, logits.scene),
        (found.object, found.object_probability, logits.object),
    ):
        expected = (each.exp() / each.exp().sum(dim=1, keepdim=True)).max(dim=1)
        assert torch.equal(index, expected.indices)
        torch.testing.assert_close(probability, expected.values)
        assert not probability.requires_grad


def test_a_packed_file_is_read_as_single_precision_for_judging(tmp_path: Path) -> None:
    rule = load_rule()
    torch.manual_seed(0)
    packed = {
        name: value.half() if value.is_floating_point() else value + 3
        for name, value in Recogniser(scenes=len(rule.scenes), objects=len(rule.objects)).state_dict().items()
    }
    save_file(packed, tmp_path / "recogniser.safetensors")
    found = load_recogniser(tmp_path / "recogniser.safetensors")
    assert not found.training
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    for name, value in found.state_dict().items():
        assert torch.equal(value, packed[name].to(value.dtype)), name
    assert found.state_dict()["stages.0.1.num_batches_tracked"] == 3
