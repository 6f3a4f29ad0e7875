"""From raw rows to tensors: decode, augment, look up attribute indices.

Pictures stay bytes here, a quarter of what they are as float32: the objective makes them a network's input,
on its own device.
"""

# B batch, S image side in pixels

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.data.images import augmentation_seed
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.data.views import RandomCrop, View, decode_views
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.seeds import hash_seed

Raw = Mapping[str, NDArray[Any]]
"""Columns of a batch of rows: image_id, image (encoded bytes), emotion, scene, objects, and maybe latent."""


class Batch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        tensors: Input of an objective, batch first.
        image_ids: Ids of its rows, B of them.
        total: Rows of the batch on all ranks; 0 where this rank has them all.
    """

    tensors: dict[str, Tensor]
    image_ids: list[str]
    total: int = 0

    @property
    def images(self) -> int:
        """Rows of the batch on all ranks."""
        return self.total or len(self.image_ids)


class MakesBatches(Protocol):
    """Rows to batches; the result of a row is a function of the seed, the epoch and the row alone."""

    def __call__(self, raw: Raw, *, epoch: int, is_training: bool) -> Batch:
        """Tensors of a batch.

        Args:
            raw: Columns.
            epoch: Selects what is random about a row.
            is_training: Whether anything is.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Collate:
    """Makes batches of one data set for one model.

    The result of a row is a function of (seed, epoch, image id) alone, whatever batch it is in.

    Attributes:
        preprocess: How the encoder sees a picture; its input has side S.
        scenes: Attribute base of the scenes; an image's `scene` is its position there.
        objects: Attribute base of the objects.
        crop_scale: Area share of the random crop, or None for no augmentation.
        seed: Base of augmentation and of the drawn objects.
        max_pixels: Larger images are refused.
        unit_size_px: Side of the image in [-1, 1] for the VAE, or None if it is not needed.
        crops_unit: Whether the VAE gets the encoder's random crop in training instead of the whole image.
        space: Classes of the data set.
        several_objects: Which object counts of several: one that each epoch draws, or the last.
        has_object_labels: Whether a batch has all objects of its images.
    """

    preprocess: Preprocess
    scenes: tuple[str, ...]
    objects: tuple[str, ...]
    crop_scale: tuple[float, float] | None
    seed: int
    max_pixels: int
    unit_size_px: int | None = None
    crops_unit: bool = False
    space: LabelSpace = MIKELS
    several_objects: Literal["drawn", "last"] = "drawn"
    has_object_labels: bool = False

    def __call__(self, raw: Raw, *, epoch: int, is_training: bool) -> Batch:
        """Tensors of a batch.

        `pixels` (B, S, S, 3) uint8, to be normalised; `emotion`, `scene`, `object` (B,) int64, -1 where the
        image has no such attribute; where wanted `object_labels` (B, A) float32, 1 for each object of the
        image; `latents` (B, c, h, w) float32 when the rows have them, else
        `unit_pixels` (B, U, U, 3) uint8 when `unit_size_px` is set.

        Args:
            raw: Columns.
            epoch: Selects the augmentation and the object of an image that has several.
            is_training: Whether to augment.

        Raises:
            ImageError: bytes that are no image, naming it.
            ValueError: an unknown emotion or attribute, naming the image.
        """
        ids = [str(name) for name in raw["image_id"]]
        views = [
            # Evaluation decodes a picture as a whole, as the finished model will.
            decode_views(
                data,
                self._views(name, epoch, is_training, "latent" in raw),
                max_pixels=self.max_pixels,
                may_reduce=is_training,
            )
            for data, name in zip(raw["image"], ids, strict=True)
        ]
        squares = [torch.from_numpy(np.stack(view)) for view in zip(*views, strict=True)]
        tensors = {
            "pixels": squares[0],
            "emotion": torch.tensor([self.space.position(str(name)) for name in raw["emotion"]]),
            "scene": torch.tensor([_index(self.scenes, name) for name in raw["scene"]]),
            "object": torch.tensor(
                [self._object(*row, epoch) for row in zip(ids, raw["objects"], strict=True)]
            ),
        }
        if self.has_object_labels:
            tensors["object_labels"] = torch.stack([self._all_objects(names) for names in raw["objects"]])
        if "latent" in raw:
            tensors["latents"] = decode_latents(raw["latent"])
        elif len(squares) > 1:
            tensors["unit_pixels"] = squares[1]
        return Batch(tensors, ids)

    def _views(self, image_id: str, epoch: int, is_training: bool, has_latents: bool) -> list[View]:
        """What the encoder sees of a picture, and the VAE: all of it, or the crop of (seed, epoch, id)."""
        crop, seen = None, self.preprocess
        if is_training and self.crop_scale is not None:
            crop = RandomCrop(augmentation_seed(self.seed, epoch, image_id), self.crop_scale)
        views = [View(seen.size_px, seen.resize_px, seen.resample, crop)]
        if self.unit_size_px is not None and not has_latents:
            side = self.unit_size_px
            views.append(View(side, side, "bicubic", crop if self.crops_unit else None))
        return views

    def _object(self, image_id: str, names: Sequence[str] | None, epoch: int) -> int:
        """If an image has several objects, one is drawn per epoch (section 1), or the last counts."""
        if names is None or len(names) == 0:
            return -1
        if self.several_objects == "last":
            return _index(self.objects, names[-1])
        return _index(self.objects, names[hash_seed(self.seed, "object", epoch, image_id) % len(names)])

    def _all_objects(self, names: Sequence[str] | None) -> Tensor:
        labels = torch.zeros(len(self.objects))
        for name in () if names is None else names:
            labels[_index(self.objects, name)] = 1
        return labels


def joined(parts: Sequence[Batch], *, total: int, is_pinned: bool) -> Batch:
    """Parts of one rank's share as one batch.

    Args:
        parts: In order, at least one.
        total: Rows of the batch on all ranks.
        is_pinned: Put it where a GPU can fetch it while something else runs.
    """
    tensors = {
        name: first if len(parts) == 1 else torch.cat([part.tensors[name] for part in parts])
        for name, first in parts[0].tensors.items()
    }
    if is_pinned:
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return Batch(tensors, [name for part in parts for name in part.image_ids], total)


def _index(base: tuple[str, ...], name: str | None) -> int:
    if name is None:
        return -1
    if name not in base:
        raise ValueError(
            f"attribute {name!r} is not in the attribute base of {len(base)} names: read the data again"
        )
    return base.index(name)


def encode_latent(latent: Tensor) -> bytes:
    """One VAE latent (c, h, w) as bytes of the `latent` column: a float16 .npy, which knows its shape."""
    if latent.ndim != 3:
        raise ValueError(f"expected a latent (c, h, w), got {tuple(latent.shape)}")
    buffer = io.BytesIO()
    np.save(buffer, latent.detach().cpu().numpy().astype("<f2"), allow_pickle=False)
    return buffer.getvalue()


def decode_latents(column: Sequence[bytes] | NDArray[Any]) -> Tensor:
    """The `latent` column as (B, c, h, w) float32."""
    latents = [np.load(io.BytesIO(data), allow_pickle=False) for data in column]
    return torch.from_numpy(np.stack(latents).astype(np.float32))
