"""The public judge behind Emo-A: one linear layer on CLIP features, which EmoGen publishes.

The file is `weights/Clip_emotion_classifier/` + `JUDGE_FILE` of JingyuanYY/EmoGen on GitHub. Its layer takes
unnormalised image features of OpenAI's CLIP ViT-L/14.
"""

# M images, C emotions

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics.weights import find_weights, has_weights, read_checkpoint, tensors_of
from uniemo_ray.store.fingerprint import file_sha256

JUDGE_FILE = "time_2023-11-12_03-29-best.pth"
"""The file of EmoGen."""
JUDGE_SHA256 = "80f72314e31e10a1e40e6e38687dd81a03e8e3ab2de03832d37e7a280485c998"
"""Its digest at EmoGen's commit c78a7e4."""
JUDGE_LABELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
"""What its outputs mean, in their order: `emotion_list_8` of EmoGen's training/inference.py."""
SHAPES = {"fc.weight": (8, 768), "fc.bias": (8,)}
"""All that is in the file."""


def has_emotion_judge(weights_dir: str | Path | None) -> bool:
    """Whether the user has the file."""
    return has_weights(weights_dir, JUDGE_FILE)


class EmotionJudge:
    """CLIP features in, probabilities of the emotions out."""

    def __init__(self, weights_dir: str | Path | None) -> None:
        """Load the layer.

        Raises:
            ValueError: when the file is missing, damaged, or of another layer.
        """
        path = find_weights(weights_dir, JUDGE_FILE, metric="emo_a")
        state = _read(path)
        self.weight, self.bias = state["fc.weight"], state["fc.bias"]

    @torch.no_grad()
    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities (M, C), in EMOTIONS order, of unnormalised features (M, 768) of CLIP ViT-L/14.

        Raises:
            ValueError: for features of another width, which are those of another CLIP.
        """
        width = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"emo_a judges features (M, {width}) of CLIP ViT-L/14, got {tuple(features.shape)}"
            )
        rows = torch.from_numpy(np.array(features))  # a copy: columns of Arrow tables are read-only
        logits = torch.nn.functional.linear(rows, self.weight, self.bias)
        columns = [JUDGE_LABELS.index(emotion) for emotion in EMOTIONS]
        return logits.double().softmax(dim=1)[:, columns].numpy()


def _read(path: Path) -> dict[str, Tensor]:
    state = tensors_of(read_checkpoint(path), path)
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != SHAPES:
        raise ValueError(f"{path} is no Emo-A judge: expected {_text(SHAPES)}, got {_text(found)}")
    digest = file_sha256(path)
    if digest != JUDGE_SHA256:
        raise ValueError(
            f"{path} is another layer than the published judge: its sha256 starts with {digest[:8]}, "
            f"expected {JUDGE_SHA256[:8]}; shares by another judge are not Emo-A"
        )
    return {name: value.float() for name, value in state.items()}


def _text(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())[:200] or "nothing"
