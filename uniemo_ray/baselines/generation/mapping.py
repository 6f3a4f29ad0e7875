"""EmoGen's mapping: image features of an emotion to the embedding of a word (Yang et al., CVPR 2024).

In the paper a ResNet-50 that was trained on the labels gives the features; here it is the run's frozen CLIP,
unless a released mapping is imported with the emotion space that it was trained on.
"""

# B batch, C labels, D width of the features, T text width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.models.pickled import read_pickled
from uniemo_ray.seeds import hash_seed
from uniemo_ray.text import one_line

_UNREADABLE = (RuntimeError, EOFError, OSError, LookupError, UnpicklingError)


class MapperShape(NamedTuple):
    """Layers of a mapping, as EmoGen's settings name them."""

    layers: int = 2
    hidden: int = 1024
    relu: bool = True
    layer_norm: bool = False
    dropout: bool = False


class EmotionMapper(nn.Module):
    """A multilayer perceptron; its tensors have the names of EmoGen's files (`mlp.0.weight`, ...)."""

    def __init__(self, width: int, text_width: int, shape: MapperShape) -> None:
        """Fresh layers from features (B, D) to word embeddings (B, T)."""
        super().__init__()
        self.width, self.text_width = width, text_width
        layers: list[nn.Module] = []
        for number in range(shape.layers - 1):
            layers.append(nn.Linear(shape.hidden if number else width, shape.hidden))
            layers += [nn.LayerNorm(shape.hidden)] if shape.layer_norm else []
            layers += [nn.ReLU()] if shape.relu else []
            layers += [nn.Dropout(0.5)] if shape.dropout else []
        self.mlp = nn.Sequential(*layers, nn.Linear(shape.hidden, text_width))

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, T) of features (B, D)."""
        embedding: Tensor = self.mlp(features)
        return embedding


@dataclass(frozen=True, eq=False)
class EmotionClouds:
    """A Gaussian for each label with independent dimensions, from which new features are drawn."""

    mean: Tensor
    """(C, D)."""
    std: Tensor
    """(C, D) sample standard deviation; NaN for a label without two images."""

    @staticmethod
    def of_sums(sums: Mapping[str, FeatureSums], labels: Sequence[str]) -> "EmotionClouds":
        """Of features that were summed by label; a label without images has no cloud."""
        empty = FeatureSums.empty(len(next(iter(sums.values())).mean))
        found = [sums.get(label, empty) for label in labels]
        mean = np.stack([part.mean for part in found])
        scatter = np.stack([part.scatter.diagonal() for part in found])
        free = np.array([[part.count - 1.0] for part in found])
        variance = np.divide(scatter, free, out=np.full_like(scatter, np.nan), where=free > 0)
        return EmotionClouds(torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float())

    def tensors(self) -> dict[str, Tensor]:
        """As a file holds them."""
        return {"mean": self.mean, "std": self.std}

    def draw(self, number: int, seed: int) -> Tensor:
        """Features (D,) of a label by its number, a function of the seed.

        Raises:
            ValueError: the label has no cloud.
        """
        if not self.std[number].isfinite().all():
            raise ValueError(f"label {number} has too few training images to draw features of it")
        generator = torch.Generator().manual_seed(hash_seed(seed, "emotion cloud"))
        return self.mean[number] + self.std[number] * torch.randn(self.mean.shape[1], generator=generator)


@dataclass(frozen=True, eq=False)
class MappedFeatures:
    """Conditions that are mapped from drawn features, another one for each image."""

    mapper: EmotionMapper
    clouds: EmotionClouds
    labels: tuple[str, ...]

    @torch.no_grad()
    def draw(self, label: str, seed: int) -> Tensor:
        """Embeddings (1, T) for one image.

        Raises:
            ValueError: a label without a cloud.
        """
        embedding: Tensor = self.mapper(self.clouds.draw(self.labels.index(label), seed)[None])
        return embedding


def mapper_of(state: Mapping[str, Tensor], shape: MapperShape) -> EmotionMapper:
    """The mapping that has these tensors, in whatever order.

    Raises:
        RuntimeError, LookupError, ValueError: they are those of another shape.
    """
    last = max(int(name.split(".")[1]) for name in state if name.endswith(".weight"))
    mapper = EmotionMapper(state["mlp.0.weight"].shape[1], len(state[f"mlp.{last}.weight"]), shape)
    mapper.load_state_dict(state)
    return mapper.eval()


def read_mapper(path: Path, shape: MapperShape) -> EmotionMapper:
    """A released mapping.

    Raises:
        ValueError: one line, where the file cannot be read or its tensors are those of another shape.
    """
    try:
        return mapper_of(read_pickled(path), shape)
    except (*_UNREADABLE, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"generation_baselines.emogen.mapper {path} is no mapping of {shape.layers} layers, hidden "
            f"{shape.hidden}, relu {shape.relu}, layer_norm {shape.layer_norm} ({one_line(error)[:200]}): "
            f"set these as it was trained"
        ) from None


def read_clouds(folder: Path, labels: Sequence[str], *, width: int) -> EmotionClouds:
    """A released emotion space: the files `LABEL_mean_v2.pt` and `LABEL_std_v2.pt` of each label, (D,) each.

    Raises:
        ValueError: one line, where a file is missing, damaged or of another width.
    """
    rows: dict[str, list[Tensor]] = {"mean": [], "std": []}
    for label in labels:
        for kind, found in rows.items():
            path = folder / f"{label}_{kind}_v2.pt"
            try:
                value = read_pickled(path)
            except _UNREADABLE as error:
                raise ValueError(f"generation_baselines.emogen.space: {path}: {one_line(error)}") from None
            if not isinstance(value, Tensor) or value.shape != (width,):
                raise ValueError(
                    f"generation_baselines.emogen.space: {path} does not hold {width} numbers, which the "
                    f"mapping reads"
                )
            found.append(value.float())
    return EmotionClouds(torch.stack(rows["mean"]), torch.stack(rows["std"]))
