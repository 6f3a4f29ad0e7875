"""The published Sem-C's judges, on random weights in the published files' form."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import resnet50

from uniemo_ray.metrics import resnet
from uniemo_ray.metrics.resnet import IMAGENET_FILE, PLACES_FILE, SemanticJudges, cropped, has_judges


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 300, 420, 3), dtype=np.uint8)


def plainly() -> torch.Tensor:
    """What the published script does with them."""
    script = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return torch.stack([script(Image.fromarray(rgb)) for rgb in pictures()])


def test_probabilities_are_those_of_the_two_networks(resnet_dir: Path) -> None:
    assert has_judges(resnet_dir)
    scene, object_ = SemanticJudges(resnet_dir)(np.stack([cropped(rgb) for rgb in pictures()]))
    plain = resnet50(num_classes=365).eval()
    state = torch.load(resnet_dir / PLACES_FILE, weights_only=True)["state_dict"]
    plain.load_state_dict({name.partition(".")[2]: value for name, value in state.items()})
    with torch.no_grad():
        expected = plain(plainly()).softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(scene, expected.numpy(), rtol=1e-4)
    assert scene.shape == object_.shape == (3,)
    plain = resnet50().eval()
    plain.load_state_dict(torch.load(next(resnet_dir.glob("resnet50-*.pth")), weights_only=True))
    with torch.no_grad():
        expected = plain(plainly()).softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(object_, expected.numpy(), rtol=1e-4)
    assert not np.allclose(scene, object_)


def test_only_prepared_pictures_are_taken(resnet_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"expected pictures \(M, 224, 224, 3\), got \(3, 300, 420, 3\)"):
        SemanticJudges(resnet_dir)(pictures())


def test_one_file_alone_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / PLACES_FILE).touch()
    assert not has_judges(tmp_path)
    assert not has_judges(None)
    with pytest.raises(ValueError, match=r"sem_c needs resnet50_places365\.pth\.tar in"):
        SemanticJudges(tmp_path.parent / "empty")
    with pytest.raises(ValueError, match=r"sem_c needs resnet50-0676ba61\.pth"):
        SemanticJudges(tmp_path)


def test_other_imagenet_weights_earn_no_published_name(random_resnets: Path, tmp_path: Path) -> None:
    assert not has_judges(random_resnets)
    for name in (PLACES_FILE, "resnet50-11ad3fa6.pth"):  # torchvision's IMAGENET1K_V2
        (tmp_path / name).touch()
    assert not has_judges(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weights": {}}, "has no 'state_dict'"),
        ([torch.zeros(1)], "has no 'state_dict'"),
        (
            {"state_dict": {"module.fc.bias": torch.zeros(9)}},
            "does not fit ResNet-50 with 365 classes: .*Missing key",
        ),
    ],
)
def test_another_file_is_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / PLACES_FILE)
    (tmp_path / IMAGENET_FILE).touch()
    with pytest.raises(ValueError, match=f"^{tmp_path / PLACES_FILE} {words}") as error:
        SemanticJudges(tmp_path)
    assert "\n" not in str(error.value)


def test_other_weights_in_the_place_of_imagenets_are_named(
    resnet_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PLACES_FILE).symlink_to(resnet_dir / PLACES_FILE)
    torch.save({"fc.bias": torch.zeros(9)}, tmp_path / "plain")
    digest = sha256((tmp_path / "plain").read_bytes()).hexdigest()[:8]
    path = (tmp_path / "plain").rename(tmp_path / f"resnet50-{digest}.pth")
    monkeypatch.setattr(resnet, "IMAGENET_FILE", path.name)
    with pytest.raises(ValueError, match=f"^{path} does not fit ResNet-50 with 1000 classes: "):
        SemanticJudges(tmp_path)


def test_both_networks_are_on_the_device_that_was_asked_for(resnet_dir: Path) -> None:
    judges = SemanticJudges(resnet_dir, device="meta")
    for net in (judges.scene, judges.object):
        assert {value.device.type for value in net.state_dict().values()} == {"meta"}
    assert judges.device == "meta"


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / PLACES_FILE).write_bytes(b"PK")
    (tmp_path / IMAGENET_FILE).touch()
    with pytest.raises(ValueError, match="is damaged, or holds more than tensors"):
        SemanticJudges(tmp_path)
