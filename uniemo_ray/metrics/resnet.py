"""Top scene and object probabilities for the published Sem-C: ResNet-50 of Places365 and of ImageNet."""

# M images, B batch

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet50

from uniemo_ray.data.images import RGB, normalise, to_square
from uniemo_ray.metrics.weights import find_weights, has_weights, load_weights, read_checkpoint
from uniemo_ray.text import one_line

PLACES_FILE = "resnet50_places365.pth.tar"
"""The file of CSAILVision/places365."""
IMAGENET_FILE = "resnet50-0676ba61.pth"
"""torchvision's file of ResNet-50's first ImageNet weights (IMAGENET1K_V1). Those of its second recipe are
another network: their probabilities are calibrated otherwise."""
PLACES_CLASSES, IMAGENET_CLASSES = 365, 1000
RESIZE_PX, CROP_PX, BATCH = 256, 224, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def has_judges(weights_dir: str | Path | None) -> bool:
    """Whether the user has both files: with one alone there is no Sem-C."""
    return has_weights(weights_dir, PLACES_FILE) and has_weights(weights_dir, IMAGENET_FILE)


def cropped(rgb: RGB) -> RGB:
    """(H, W, 3) to the networks' (224, 224, 3): shorter side to 256 (bilinear), then the centre.

    So they were evaluated, and so the published script does it.
    """
    return to_square(rgb, CROP_PX, resize_px=RESIZE_PX, resample="bilinear")


class SemanticJudges:
    """Pictures in, probabilities of the likeliest scene and of the likeliest object out."""

    def __init__(self, weights_dir: str | Path | None, *, device: str = "cpu") -> None:
        """Load both networks onto a torch device.

        Raises:
            ValueError: when a file is missing, damaged or of another network.
        """
        places = find_weights(weights_dir, PLACES_FILE, metric="sem_c")
        imagenet = find_weights(weights_dir, IMAGENET_FILE, metric="sem_c")
        self.scene = _network(places, _places_state(places), PLACES_CLASSES).to(device)
        self.object = _network(imagenet, load_weights(imagenet), IMAGENET_CLASSES).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Two vectors (M,) of probabilities, for pictures (M, 224, 224, 3) as `cropped` makes them.

        Raises:
            ValueError: for pictures of another size.
        """
        if pixels.shape[1:] != (CROP_PX, CROP_PX, 3):
            raise ValueError(f"expected pictures (M, {CROP_PX}, {CROP_PX}, 3), got {pixels.shape}")
        scene, object_ = [], []
        for start in range(0, len(pixels), BATCH):
            x = normalise(pixels[start : start + BATCH], MEAN, STD).to(self.device)
            scene.append(_best(self.scene(x)))
            object_.append(_best(self.object(x)))
        return np.concatenate(scene), np.concatenate(object_)


def _places_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the training checkpoint that is published; its names say that it ran on several GPUs."""
    content = read_checkpoint(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} has no 'state_dict': expected the published checkpoint of Places365")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _network(path: Path, state: dict[str, Tensor], classes: int) -> nn.Module:
    with torch.device("meta"):
        net = resnet50(num_classes=classes)
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = one_line(error)[:300]
        raise ValueError(f"{path} does not fit ResNet-50 with {classes} classes: {reason}") from None
    return net.eval()  # type: ignore[no-any-return]  # torchvision has no types


def _best(logits: Tensor) -> NDArray[np.float64]:
    return logits.double().softmax(dim=1).amax(dim=1).cpu().numpy()
