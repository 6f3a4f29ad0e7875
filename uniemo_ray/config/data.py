"""Settings of the data set."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.emotions import EMOTIONS, LABEL_SPACES, Valence, normalise_label, stated_space
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
    labels: Literal["mikels", "ekman", "sentiment"] | tuple[str, ...] = "mikels"
    """Classes of a `folders` or `sketch` set: eight emotions, six emotions, positive and negative, or a list
    of your own, such as `[calm, tense]`. Own labels have letters, digits, `_` and `-`; capitals and spaces do
    not count, so `Very Calm` is `very_calm`. Source: ours."""
    valences: dict[str, Valence] = Field(default_factory=dict)
    """Valence of own labels, such as `{calm: positive, tense: negative}`. Labels may be without one; metrics
    of positive against negative need labels of both. Source: ours."""
    sketch_classes: dict[str, list[str]] = Field(default_factory=dict)
    """Which emotions of EmoSketch's rule each own label stands for, such as `{calm: [contentment, awe],
    tense: [anger, fear]}`. A picture of a label is one of its emotions, each as often. Source: ours."""
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

    @field_validator("labels", mode="before")
    @classmethod
    def _known_or_own(cls, given: Any) -> Any:
        if isinstance(given, str) and given not in LABEL_SPACES:
            raise ValueError(
                f"expected {', '.join(LABEL_SPACES)} or a list of your own labels, got {given!r}"
            )
        if not isinstance(given, list | tuple):
            return given
        if wrong := [label for label in given if not isinstance(label, str)]:
            raise ValueError(f"expected labels that are text, got {wrong[0]!r}: put it in quotes")
        return tuple(map(normalise_label, given))

    @field_validator("valences", "sketch_classes", mode="before")
    @classmethod
    def _by_label(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not all(isinstance(label, str) for label in given):
            return given
        found = {normalise_label(label): value for label, value in given.items()}
        if len(found) < len(given):
            raise ValueError(f"a label is there twice, in two spellings: {', '.join(given)}")
        return found

    @model_validator(mode="after")
    def _own_labels(self) -> "DataConfig":
        if isinstance(self.labels, str):
            for name in ("valences", "sketch_classes"):
                if getattr(self, name):
                    raise ValueError(
                        f"data.{name} is a setting of your own labels, but data.labels is {self.labels!r}"
                    )
            return self
        space = stated_space(self.labels, self.valences)
        if self.valence and not space.has_valence:
            raise ValueError(
                "data.valence needs labels of both valences: say in data.valences which are positive and "
                "which negative"
            )
        if self.kind == "sketch":
            _check_sketch_classes(self.labels, self.sketch_classes)
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
        for name, *kinds in (
            ("labels", "folders", "sketch"),
            ("sketch_classes", "sketch"),
            ("agreement", "twitter1"),
        ):
            is_default = getattr(self, name) == type(self).model_fields[name].get_default(
                call_default_factory=True
            )
            if self.kind not in kinds and not is_default:
                raise ValueError(
                    f"data.{name} is a setting of data.kind {' and '.join(map(repr, kinds))}, but the kind "
                    f"is {self.kind!r}"
                )
        return self


def _check_sketch_classes(labels: Sequence[str], classes: dict[str, list[str]]) -> None:
    """Raise ValueError unless every label stands for emotions of EmoSketch's rule, and none for another's."""
    if lost := [label for label in labels if not classes.get(label)]:
        raise ValueError(
            f"data.sketch_classes has no emotions for the label {lost[0]!r}: EmoSketch draws pictures of "
            f"{', '.join(EMOTIONS)}; say which of them it stands for"
        )
    if unknown := [label for label in classes if label not in labels]:
        raise ValueError(f"data.sketch_classes has {unknown[0]!r}, which is none of data.labels")
    drawn = [emotion for label in labels for emotion in classes[label]]
    if strange := [emotion for emotion in drawn if emotion not in EMOTIONS]:
        raise ValueError(
            f"data.sketch_classes has the emotion {strange[0]!r}: expected some of {', '.join(EMOTIONS)}"
        )
    if twice := [emotion for emotion in drawn if drawn.count(emotion) > 1]:
        raise ValueError(f"data.sketch_classes has {twice[0]!r} more than once: an emotion is of one label")
