"""Settings of the data set."""

from typing import Literal

from pydantic import Field, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.settings_base import Settings

MAX_PIXELS = 50_000_000
"""Default of `data.max_pixels`, in pixels (width x height)."""
SPLITS = ("train", "val", "test")
FOLDED = ("emotionroi", "twitter1", "twitter2")
"""Kinds of data set that `data.fold` splits."""


class DataConfig(Settings):
    """Where the images come from and how they become Parquet shards."""

    kind: Literal["sketch", "emoset", "fi", "emotionroi", "twitter1", "twitter2", "folders"] = "sketch"
    """Data set: `sketch` generates EmoSketch, `folders` reads one folder per class, the others are published
    sets. Source: ours."""
    root: Address | None = None
    """Folder of the data set, on a disk of every machine or in a bucket (`s3://bucket/folder`). Every kind
    except `sketch` requires it. Source: ours."""
    labels: Literal["mikels", "ekman", "sentiment"] = "mikels"
    """Classes of a `folders` set: eight emotions, six emotions, or positive and negative. Source: ours."""
    valence: bool = False
    """Replace each label by its valence when the set is read, which leaves two classes, positive and
    negative. Images whose label has no valence (surprise) are refused and listed by name. Source: ours."""
    agreement: Literal[3, 4, 5] = 3
    """How many of the five raters of `twitter1` must agree on a label. Unit: raters. Source: the subsets that
    its authors publish."""
    split_seed: int = 0
    """Seed that draws the splits of a set that has none. Unit: none. Source: ours."""
    fold: int | None = Field(None, ge=0, le=4)
    """Which of five folds of `emotionroi`, `twitter1` or `twitter2` is the test split. All images of the set
    are dealt into them, class by class, with `split_seed`; a sixteenth of the other four validates. None
    takes the set's own lists, or draws one fifth. Unit: none (0 to 4). Source: the literature on these sets
    tests on five folds."""
    sketch_train: int = Field(4000, ge=16)
    """Training images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_val: int = Field(500, ge=8)
    """Validation images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_test: int = Field(1000, ge=8)
    """Test images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_seed: int = 0
    """Seed of EmoSketch. Unit: none. Source: ours."""
    sketch_size_px: int = Field(64, ge=32, le=1024)
    """Side of an EmoSketch image. Unit: pixels. Source: ours."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """Images with more pixels than this are refused and listed by name, as a guard against decompression
    bombs. Unit: pixels (width x height). Source: ours."""
    rows_per_shard: int = Field(4000, ge=1)
    """Largest number of images in one canonical Parquet shard. Unit: images. Source: ours."""
    shard_mb: int = Field(512, ge=1)
    """Largest size of the images in one canonical Parquet shard. The task that writes a shard holds about
    three times as much in memory. Unit: MB. Source: ours."""

    @model_validator(mode="after")
    def _needs_root(self) -> "DataConfig":
        if self.kind != "sketch" and not self.root:
            raise ValueError(f"data.kind is {self.kind!r} but data.root is empty: give the data set's folder")
        return self

    @model_validator(mode="after")
    def _folds_where_they_are_used(self) -> "DataConfig":
        if self.fold is not None and self.kind not in FOLDED:
            raise ValueError(
                f"data.fold is a setting of data.kind {', '.join(FOLDED)}, but the kind is {self.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _no_idle_settings(self) -> "DataConfig":
        for name, kind in (("labels", "folders"), ("agreement", "twitter1")):
            is_default = getattr(self, name) == type(self).model_fields[name].default
            if self.kind != kind and not is_default:
                raise ValueError(
                    f"data.{name} is a setting of data.kind {kind!r}, but the kind is {self.kind!r}"
                )
        return self
