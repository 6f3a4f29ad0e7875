"""From raw rows to tensors: decode, augment, look up attribute indices."""

# B batch, S image side in pixels

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.data.images import (
    augmentation_seed,
    decode_rgb,
    random_crop_flip,
    to_square,
    to_unit_range,
)
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.seeds import hash_seed

Raw = Mapping[str, NDArray[Any]]
"""Columns of a batch of rows: image_id, image (encoded bytes), emotion, scene, objects, and maybe latent."""


class Batch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        tensors: Input of an objective, batch first.
        image_ids: Ids of its rows, B of them.
    """

    tensors: dict[str, Tensor]
    image_ids: list[str]


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

        `pixels` (B, 3, S, S) float32 normalised; `emotion`, `scene`, `object` (B,) int64, -1 where the
        image has no such attribute; where wanted `object_labels` (B, A) float32, 1 for each object of the
        image; `latents` (B, c, h, w) float32 when the rows have them, else
        `unit_pixels` (B, 3, U, U) in [-1, 1] when `unit_size_px` is set.

        Args:
            raw: Columns.
            epoch: Selects the augmentation and the object of an image that has several.
            is_training: Whether to augment.

        Raises:
            ImageError: bytes that are no image, naming it.
            ValueError: an unknown emotion or attribute, naming the image.
        """
        ids = [str(name) for name in raw["image_id"]]
        images = [decode_rgb(data, self.max_pixels) for data in raw["image"]]
        tensors = {
            "pixels": self.preprocess.pixels(self._views(images, ids, epoch=epoch, is_training=is_training)),
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
        elif self.unit_size_px is not None:
            is_cropped = is_training and self.crops_unit
            squares = self._units(images, ids, self.unit_size_px, epoch=epoch, is_cropped=is_cropped)
            tensors["unit_pixels"] = to_unit_range(squares)
        return Batch(tensors, ids)

    def _views(
        self, images: Sequence[NDArray[np.uint8]], ids: Sequence[str], *, epoch: int, is_training: bool
    ) -> list[NDArray[np.uint8]]:
        """B squares for the encoder: whole, or the random crop of (seed, epoch, id)."""
        scale = self.crop_scale
        if scale is None or not is_training:
            return [self.preprocess.square(image) for image in images]
        seeds = [augmentation_seed(self.seed, epoch, name) for name in ids]
        return [
            self.preprocess.random_square(image, seed=seed, crop_scale=scale)
            for image, seed in zip(images, seeds, strict=True)
        ]

    def _units(
        self,
        images: Sequence[NDArray[np.uint8]],
        ids: Sequence[str],
        size_px: int,
        *,
        epoch: int,
        is_cropped: bool,
    ) -> NDArray[np.uint8]:
        """(B, size_px, size_px, 3) for the VAE: whole, or the encoder's random crop at this size."""
        scale = self.crop_scale
        if scale is None or not is_cropped:
            return np.stack([to_square(image, size_px) for image in images])
        return np.stack(
            [
                random_crop_flip(
                    image, size_px, seed=augmentation_seed(self.seed, epoch, name), crop_scale=scale
                )
                for image, name in zip(images, ids, strict=True)
            ]
        )

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
