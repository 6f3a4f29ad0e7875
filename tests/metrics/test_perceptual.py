"""LPIPS, published and tiny."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from uniemo_ray.metrics import perceptual
from uniemo_ray.metrics.pairs import PairMean
from uniemo_ray.metrics.perceptual import (
    alex_distance,
    load_lpips_alex,
    lpips_alex,
    lpips_tiny,
    perceptual_diversity,
    tiny_distance,
)
from uniemo_ray.metrics.pictures import Pictures
from uniemo_ray.metrics.recogniser import Recogniser

IDS = [f"i{n}" for n in range(8)]
LABELS = ["awe"] * 4 + ["fear"] * 4


@pytest.fixture
def recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(scenes=2, objects=3).eval()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(8, 64, 64, 3), dtype=np.uint8)


def test_tiny_is_the_lpips_package_without_calibration(recogniser: Recogniser) -> None:
    """The package's own class, its trunk and input scaling swapped for the recogniser's."""

    class Trunk(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return recogniser.features(x)

    reference = lpips.LPIPS(net="alex", lpips=False, pnet_rand=True, verbose=False)
    reference.net, reference.scaling_layer = Trunk(), nn.Identity()
    first, second = torch.rand(2, 5, 3, 32, 32) * 2 - 1
    expected = reference(first, second).reshape(-1)
    torch.testing.assert_close(tiny_distance(recogniser)(first, second), expected)


def test_tiny_is_zero_for_equal_and_symmetric(recogniser: Recogniser) -> None:
    distance = tiny_distance(recogniser)
    first, second = torch.rand(2, 3, 3, 32, 32) * 2 - 1
    assert distance(first, first).abs().max() == 0
    torch.testing.assert_close(distance(first, second), distance(second, first))
    assert (distance(first, second) > 0).all()


def test_diversity_is_the_mean_over_pairs_within_an_emotion(
    recogniser: Recogniser, pixels: np.ndarray
) -> None:
    pixels[4:] = pixels[4]  # no diversity in fear
    found = lpips_tiny(pixels.__getitem__, IDS, LABELS, recogniser=recogniser, pairs=100, seed=0)
    x = torch.from_numpy(pixels[:4]).permute(0, 3, 1, 2) / 127.5 - 1
    first, second = zip(*torch.combinations(torch.arange(4)).tolist(), strict=True)
    with torch.no_grad():
        expected = float(tiny_distance(recogniser)(x[list(first)], x[list(second)]).mean())
    assert found.name == "lpips_tiny"
    assert found.per_emotion == pytest.approx({"awe": expected, "fear": 0.0})
    assert found.mean == pytest.approx(expected / 2)
    assert found.pairs == 12
    assert found.standard_error is not None


def test_alex_equals_lpips_with_the_same_trunk(alexnet_dir: Path) -> None:
    """Built the package's way with a random trunk, then given the same weights layer by layer."""
    model = load_lpips_alex(alexnet_dir)
    state = torch.load(next(alexnet_dir.iterdir()), weights_only=True)
    with torch.device("meta"):
        trunk = alexnet(weights=None)
    trunk.load_state_dict(state, assign=True, strict=False)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    ours = dict(model.named_parameters())
    convolutions = {0: "slice1.0", 3: "slice2.3", 6: "slice3.6", 8: "slice4.8", 10: "slice5.10"}
    for index, name in convolutions.items():
        layer = reference.net.get_submodule(name)
        layer.load_state_dict(trunk.features[index].state_dict())
        torch.testing.assert_close(ours[f"net.{name}.weight"], trunk.features[index].weight)
    first, second = torch.rand(2, 3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        found = alex_distance(alexnet_dir)(first, second)
        torch.testing.assert_close(found, reference(first, second).reshape(-1))
    assert found.std() > 0
    assert not model.training


def test_alex_keeps_the_calibration_that_the_package_ships(alexnet_dir: Path) -> None:
    model = load_lpips_alex(alexnet_dir)
    folder = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    shipped = torch.load(folder, map_location="cpu", weights_only=True)
    for name, value in shipped.items():
        assert torch.equal(model.state_dict()[name], value)


def test_alex_diversity_runs_on_pictures(alexnet_dir: Path, pixels: np.ndarray) -> None:
    found = lpips_alex(pixels.__getitem__, IDS, LABELS, weights_dir=alexnet_dir, pairs=2, seed=0)
    assert (found.name, found.pairs) == ("lpips_alex", 4)
    assert found.mean > 0


def drawn_with(seed: int, measure: Callable[[Pictures, int], object], pixels: np.ndarray) -> list[list[int]]:
    """The rows that a metric asks for."""
    asked: list[list[int]] = []

    def pictures(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return pixels[rows]

    measure(pictures, seed)
    return asked


def test_the_seed_alone_draws_the_pairs(
    recogniser: Recogniser, alexnet_dir: Path, pixels: np.ndarray
) -> None:
    assert perceptual.has_alexnet(alexnet_dir)

    def tiny(pictures: Pictures, seed: int) -> object:
        return lpips_tiny(pictures, IDS, LABELS, recogniser=recogniser, pairs=2, seed=seed)

    def alex(pictures: Pictures, seed: int) -> object:
        return lpips_alex(pictures, IDS, LABELS, weights_dir=alexnet_dir, pairs=2, seed=seed)

    for measure in (tiny, alex):
        found = [drawn_with(seed, measure, pixels) for seed in (0, 0, 1, 2)]
        assert found[0] == found[1]
        assert found[0] != found[2] != found[3]


def test_the_pictures_of_a_batch_of_pairs_are_asked_for_at_a_time(pixels: np.ndarray) -> None:
    def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean(dim=(1, 2, 3))

    def measure(pictures: Pictures, seed: int, **options: int) -> PairMean:
        return perceptual_diversity(
            pictures, IDS, LABELS, name="any", distance=distance, pairs=6, seed=seed, **options
        )

    asked = drawn_with(0, lambda pictures, seed: measure(pictures, seed, batch_size=4), pixels)
    assert [len(rows) for rows in asked] == [4, 4, 2, 2] * 2
    whole, parts = measure(pixels.__getitem__, 0), measure(pixels.__getitem__, 0, batch_size=1)
    assert whole.mean == pytest.approx(parts.mean)


@pytest.mark.parametrize(("height", "width"), [(30, 64), (64, 24), (16, 16)])
def test_pictures_too_small_for_alexnet_are_refused_in_one_line(
    alexnet_dir: Path, height: int, width: int
) -> None:
    pictures = np.zeros((8, height, width, 3), dtype=np.uint8).__getitem__
    with pytest.raises(ValueError, match=f"of at least 31 px a side, got {width} x {height}$"):
        lpips_alex(pictures, IDS, LABELS, weights_dir=alexnet_dir, pairs=2, seed=0)


def test_the_smallest_pictures_of_alexnet_have_a_distance(alexnet_dir: Path) -> None:
    first, second = torch.rand(2, 3, 3, 31, 31) * 2 - 1
    with torch.no_grad():
        assert (alex_distance(alexnet_dir)(first, second) > 0).all()


def test_without_the_file_alex_says_what_it_needs(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = r"lpips_alex needs alexnet-owt-7be5be79\.pth in evaluation\.weights_dir"
    with pytest.raises(ValueError, match=needs):
        lpips_alex(pixels.__getitem__, IDS, LABELS, weights_dir=None, pairs=2, seed=0)
    path = tmp_path / "plain.pth"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    own = path.rename(tmp_path / f"alexnet-owt-{sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    assert not perceptual.has_alexnet(tmp_path)
    monkeypatch.setattr(perceptual, "ALEXNET_FILE", own.name)
    with pytest.raises(ValueError, match=r"no torchvision AlexNet.*features\.0\.weight"):
        load_lpips_alex(tmp_path)


def test_bad_pictures_are_refused(recogniser: Recogniser, pixels: np.ndarray) -> None:
    pictures = pixels.astype(np.float32).__getitem__
    with pytest.raises(ValueError, match="expected uint8 pictures"):
        lpips_tiny(pictures, IDS, LABELS, recogniser=recogniser, pairs=2, seed=0)
