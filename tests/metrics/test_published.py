"""The published protocol against its scripts, written plainly with PIL, torchvision, torchmetrics and lpips.

All pictures that are resized are larger than 299 px: a missing antialias, a crop or another range of values
would show.
"""

import io
from pathlib import Path

import lpips
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision import transforms
from torchvision.models import alexnet
from transformers import CLIPImageProcessor

from tests.metrics.sets import feature_sums, image_set, yardstick
from tests.metrics.small_network import AsTorchmetrics, SmallNetwork, put_small_network
from tests.models.tiny import write_clip
from uniemo_ray.distributed.shards.actors.published import InceptionActor, PublishedProtocol, TrainProtocol
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics import published
from uniemo_ray.metrics.frechet import FeatureSums, frechet
from uniemo_ray.metrics.generation import Sides, measure_images
from uniemo_ray.metrics.perceptual import alex_distance
from uniemo_ray.metrics.published import (
    chosen_rows,
    draw_published_pairs,
    fid_name,
    lpips_published,
    mean_over_published_pairs,
    sem_d_published,
)
from uniemo_ray.models.clip import load_clip


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallNetwork:
    return put_small_network(tmp_path, monkeypatch)


def pictures(count: int, sizes: list[tuple[int, int]], seed: int) -> list[bytes]:
    """PNG files with fine and coarse structure."""
    rng, files = np.random.default_rng(seed), []
    for number in range(count):
        wide, high = sizes[number % len(sizes)]
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((wide, high))
        noise = rng.integers(0, 256, (high, wide, 3))
        mixed = (0.6 * np.asarray(coarse) + 0.4 * noise).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(mixed).save(file, format="PNG")
        files.append(file.getvalue())
    return files


def jpeg(data: bytes) -> Image.Image:
    """The picture from the file that the released inference writes."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "JPEG")
    return Image.open(file)


def table(files: list[bytes], labels: list[str]) -> pa.Table:
    ids = [f"i{number:03d}" for number in range(len(files))]
    return pa.table({"image_id": ids, "emotion": labels, "image": pa.array(files, pa.binary())})


def rows(found: pa.Table) -> np.ndarray:
    return np.stack(found["inception_feature"].to_numpy(zero_copy_only=False))


def test_fid_is_that_of_the_published_script(
    small: SmallNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "PER_EMOTION", 3)
    labels = [name for name in EMOTIONS for _ in range(4)]  # one of four is one too many
    made = pictures(len(labels), [(320, 320)], seed=1)
    real = pictures(24, [(640, 360), (305, 500), (420, 420)], seed=2)

    rule = transforms.Compose([transforms.Resize((299, 299)), transforms.ToTensor()])
    metric = FrechetInceptionDistance(feature=AsTorchmetrics(small), normalize=True)
    with torch.no_grad():
        for data in real:
            metric.update(rule(Image.open(io.BytesIO(data)).convert("RGB"))[None], real=True)
        for number, data in enumerate(made):
            if number % 4 < 3:
                metric.update(rule(jpeg(data).convert("RGB"))[None], real=False)
    expected = float(metric.compute())

    given = table(made, labels)
    ids = given["image_id"].to_pylist()
    chosen = [ids[row] for row in chosen_rows(ids, labels)]
    mine = InceptionActor(str(tmp_path), PublishedProtocol("generated"), 10**6, chosen=chosen)(given)
    theirs = InceptionActor(str(tmp_path), PublishedProtocol("real"), 10**6)(table(real, ["awe"] * 24))
    made_sums = feature_sums(rows(mine), mine["emotion"].to_pylist())
    sides = Sides(fid_name(made_sums, EMOTIONS), made_sums, feature_sums(rows(theirs), ["awe"] * 24))
    found = measure_images(image_set(sides=(sides,)), yardstick())
    assert found.fid == pytest.approx(expected, rel=1e-3)
    assert (found.fid_small, found.fid_train) == (None, None)

    cropped = InceptionActor(str(tmp_path), TrainProtocol(320), 10**6)(table(real, ["awe"] * 24))
    other = frechet(*(feature_sums(rows(x), ["awe"] * 24)["awe"] for x in (cropped, theirs)), name="fid")
    assert other.distance > 0.01 * expected  # a crop and a squash are not the same


def test_our_protocol_crops_real_pictures_and_smooths_where_it_shrinks(
    small: SmallNetwork, tmp_path: Path
) -> None:
    (data,) = pictures(1, [(700, 500)], seed=3)
    found = rows(InceptionActor(str(tmp_path), TrainProtocol(400), 10**6)(table([data], ["awe"])))
    rule = transforms.Compose(
        [
            transforms.Resize(400, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(400),
            transforms.Resize((299, 299)),
            transforms.PILToTensor(),
        ]
    )
    with torch.no_grad():
        expected = small((rule(Image.open(io.BytesIO(data)))[None].float() - 128) / 128)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lost", [0, 1])
def test_one_image_too_few_is_not_the_published_number(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setattr(published, "PER_EMOTION", 3)
    labels = [name for name in EMOTIONS for _ in range(3)][: 24 - lost]
    rng = np.random.default_rng(0)
    mine = feature_sums(rng.normal(size=(len(labels), 4)).astype(np.float32), labels)
    real = feature_sums(rng.normal(size=(24, 4)).astype(np.float32), labels + ["awe"] * lost)
    images = image_set(sides=(Sides(fid_name(mine, EMOTIONS), mine, real),))
    found = measure_images(images, yardstick()).to_dict()
    assert [name for name in ("fid", "fid_small") if name in found] == ["fid_small" if lost else "fid"]


def test_the_published_number_is_of_8000_images() -> None:
    def of(count: int) -> FeatureSums:
        return FeatureSums(count, np.zeros(1), np.zeros((1, 1)))

    assert fid_name({name: of(1000) for name in EMOTIONS}, EMOTIONS) == "fid"
    assert fid_name({name: of(999) for name in EMOTIONS}, EMOTIONS) == "fid_small"
    assert fid_name({name: of(1000) for name in EMOTIONS[1:]}, EMOTIONS) == "fid_small"
    ids, labels = [f"{n:05d}" for n in range(2500)], ["awe"] * 1200 + ["fear"] * 1300
    assert chosen_rows(ids, labels).tolist() == [*range(1000), *range(1200, 2200)]
    shuffled = np.random.default_rng(0).permutation(2500)
    again = chosen_rows([ids[n] for n in shuffled], [labels[n] for n in shuffled])
    assert sorted(shuffled[again].tolist()) == [*range(1000), *range(1200, 2200)]


def test_pairs_come_from_all_emotions_so_far_and_are_ten() -> None:
    labels = ["fear", "amusement", "awe", "fear"] * 5
    ids = [f"i{n:02d}" for n in range(20)]
    drawn = draw_published_pairs(ids, labels, labels=EMOTIONS, seed=0)
    assert list(drawn) == ["amusement", "awe", "fear"]  # the order of the script
    assert {len(pairs) for pairs in drawn.values()} == {10}
    assert all((pairs[:, 0] != pairs[:, 1]).all() for pairs in drawn.values())
    seen = {name: {labels[row] for row in pairs.reshape(-1)} for name, pairs in drawn.items()}
    assert seen["amusement"] == {"amusement"}
    assert seen["awe"] == {"amusement", "awe"}
    assert seen["fear"] >= {"amusement", "fear"}
    order = np.random.default_rng(1).permutation(20)
    again = draw_published_pairs([ids[n] for n in order], [labels[n] for n in order], labels=EMOTIONS, seed=0)
    assert all((order[again[name]] == drawn[name]).all() for name in drawn)
    assert not (draw_published_pairs(ids, labels, labels=EMOTIONS, seed=1)["fear"] == drawn["fear"]).all()


def test_lpips_is_that_of_the_published_script(alexnet_dir: Path) -> None:
    labels = [name for name in EMOTIONS for _ in range(2)]
    files = pictures(len(labels), [(100, 84)], seed=4)
    stack = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])
    drawn = draw_published_pairs([f"i{n:02d}" for n in range(len(files))], labels, labels=EMOTIONS, seed=0)

    with torch.device("meta"):
        trunk = alexnet(weights=None)
    weights = torch.load(next(alexnet_dir.iterdir()), weights_only=True)
    trunk.load_state_dict(weights, assign=True, strict=False)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for index, name in {0: "slice1.0", 3: "slice2.3", 6: "slice3.6", 8: "slice4.8", 10: "slice5.10"}.items():
        reference.net.get_submodule(name).load_state_dict(trunk.features[index].state_dict())
    tensors = [transforms.ToTensor()(jpeg(data)) for data in files]

    def script(scale: float, shift: float) -> float:
        with torch.no_grad():
            scores = [
                [reference(scale * tensors[i] + shift, scale * tensors[j] + shift).item() for i, j in pairs]
                for pairs in drawn.values()
            ]
        return float(np.mean([sum(values) / 10 for values in scores]))

    found = lpips_published(stack.__getitem__, drawn, distance=alex_distance(alexnet_dir))
    assert (found.name, found.pairs, found.per_emotion) == ("lpips", 80, {})
    assert found.mean == pytest.approx(script(1, 0), rel=1e-4)
    assert abs(script(2, -1) - found.mean) > 0.05 * found.mean  # [-1, 1] gives another number
    assert found.standard_error is not None


def test_sem_d_is_that_of_the_published_script(tmp_path: Path) -> None:
    """The processor divides pictures of [0, 1] by 255 once more, so the values are tiny."""
    write_clip(tmp_path)
    clip = load_clip(str(tmp_path))
    size = clip.image_size_px
    labels = [name for name in EMOTIONS for _ in range(2)]
    files = pictures(len(labels), [(size, size)], seed=5)
    stack = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])
    drawn = draw_published_pairs([f"i{n:02d}" for n in range(len(files))], labels, labels=EMOTIONS, seed=0)
    processor = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=list(clip.mean), image_std=list(clip.std),
    )  # fmt: skip

    def feature(row: int, *, is_tensor: bool = True) -> Tensor:
        picture = jpeg(files[row])
        given = transforms.ToTensor()(picture) if is_tensor else picture
        with torch.no_grad():
            return clip.model.encode_image(processor(images=[given], return_tensors="pt")["pixel_values"])[0]

    def script(*, is_tensor: bool) -> float:
        gaps = [
            [
                nn.functional.mse_loss(*(feature(int(row), is_tensor=is_tensor) for row in pair))
                for pair in pairs
            ]
            for pairs in drawn.values()
        ]
        return float(np.mean([sum(values) / 10 for values in gaps]))

    found = sem_d_published(stack.__getitem__, drawn, clip=clip)
    assert found.name == "sem_d"
    assert found.mean == pytest.approx(script(is_tensor=True), rel=1e-3)
    assert script(is_tensor=False) > 10 * found.mean


def test_without_two_images_there_is_no_number() -> None:
    drawn = draw_published_pairs(["a"], ["awe"], labels=EMOTIONS, seed=0)
    with pytest.raises(ValueError, match="lpips needs two images"):
        lpips_published(lambda _: np.zeros((0, 8, 8, 3), np.uint8), drawn, distance=lambda a, b: a)


def test_the_mean_over_published_pairs_and_its_standard_error_by_hand():
    drawn = {"awe": np.array([[0, 1], [2, 3], [4, 5]]), "fear": np.array([[0, 2], [1, 3]])}
    values = {0: [1.0, 2.0, 6.0], 1: [4.0, 8.0]}
    answers = iter(values.values())
    found = mean_over_published_pairs("lpips", drawn, distance=lambda _a, _b: np.array(next(answers)))
    assert found.mean == pytest.approx((3 + 6) / 2)
    variance = 7 / 3 + 8 / 2  # of each mean
    assert found.standard_error == pytest.approx(variance**0.5 / 2)
    assert (found.pairs, found.per_emotion, found.without_pairs) == (5, {}, ())


def test_no_images_are_chosen_from_none():
    rows = chosen_rows([], [])
    assert (len(rows), rows.dtype) == (0, np.int64)
