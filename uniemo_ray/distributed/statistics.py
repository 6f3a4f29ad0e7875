"""Coefficients and emotion space as Ray Data aggregations.

Each batch of rows becomes one small partial sum where it lies; only partial sums travel to the driver,
which merges them as they come. (A Ray Data aggregation function computes the same through a hash
shuffle, which costs three more rounds of processes.)
"""

# B rows of a block, C emotions, D width

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.data import Dataset

from uniemo_ray.config import EmotionSpaceConfig
from uniemo_ray.distributed.datasets import selectors_of
from uniemo_ray.distributed.waiting import light, waiting_shown
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.pools import ANYWHERE, Pool
from uniemo_ray.statistics.coefficients import CoefficientSums
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.statistics.feature_sample import FeatureSample
from uniemo_ray.statistics.gaussian_space import GaussianSums
from uniemo_ray.statistics.mixture_fit import fit_centres
from uniemo_ray.statistics.mixture_sums import MixtureSums
from uniemo_ray.statistics.neighbour_space import NeighbourSpace
from uniemo_ray.store.steps import current_step

BATCH_ROWS = 4096
"""Rows behind one partial sum, at most."""

Columns = dict[str, NDArray[Any]]
SPACE_COLUMNS = {
    "scene": "scene_feature",
    "object": "object_feature",
    "cls": "cls_feature",
    "patch": "patch_feature",
}
"""Where `compute_space` looks for each member by default."""


class Mergeable(Protocol):
    """A partial sum."""

    def merge(self, other: Self, /) -> Self:
        """The sum over both parts."""
        ...


S = TypeVar("S", bound=Mergeable)


def compute_coefficients(
    rows: Dataset,
    *,
    probabilities: str = "probabilities",
    scene: str = "scene",
    objects: str = "objects",
    space: LabelSpace = MIKELS,
    pool: Pool | None = None,
) -> pa.Table:
    """Coefficients of every attribute (eq. 5), rows of `coefficients_schema`.

    Args:
        rows: one row per training image.
        probabilities: column of C probabilities by the emotion classifier.
        scene: column of a name or null.
        objects: column of a list of names, or null.
        space: the C classes.
        pool: the machines that add up.

    Raises:
        ValueError: when a column is missing.
    """
    chosen = _checked(rows, [probabilities, scene, objects], pool)

    def part(block: Columns) -> CoefficientSums:
        sums = CoefficientSums(labels=space.labels)
        if len(block[scene]):
            sums.update(_stack(block[probabilities]), block[scene].tolist(), block[objects].tolist())
        return sums

    return _merged(chosen, part, lambda: CoefficientSums(labels=space.labels), pool).table()


def compute_space(
    features: Dataset,
    *,
    settings: EmotionSpaceConfig | None = None,
    seed: int = 0,
    members: Mapping[str, str] = SPACE_COLUMNS,
    emotion: str = "emotion",
    image_id: str = "image_id",
    space: LabelSpace = MIKELS,
    emotions: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> EmotionSpace:
    """Emotion space of encoder features (section 4).

    One Gaussian takes one pass over the images, and so do neighbours; a mixture takes two.

    Args:
        features: one row per training image.
        settings: kind of the space; by default one Gaussian for each emotion.
        seed: of the first centres of a mixture.
        members: member (`scene`, `object`, `cls`, `patch`) to its column; without what a model lacks.
        emotion: column of the emotion's name.
        image_id: column of the image's id; one Gaussian needs none.
        space: the C classes.
        emotions: those that must have an image; by default all.
        pool: the machines that add up.

    Raises:
        ValueError: when a column is missing or an emotion has no image.
    """
    settings = settings or EmotionSpaceConfig()
    with_sample = settings.kind != "gaussian"
    ids = [image_id] if with_sample else []
    chosen = _checked(features, [emotion, *ids, *members.values()], pool)

    def read(block: Columns) -> tuple[list[int], Columns]:
        labels = [space.position(str(name)) for name in block[emotion]]
        return labels, {member: _stack(block[column]) for member, column in members.items()} if labels else {}

    def first(block: Columns) -> _GaussianAndSample:
        part = _GaussianAndSample.empty(space, settings.sample)
        labels, rows = read(block)
        if labels:
            part.gaussian.update(labels, rows)
            if with_sample:
                part.sample.update(labels, block[image_id].tolist(), rows)
        return part

    found = _merged(chosen, first, lambda: _GaussianAndSample.empty(space, settings.sample), pool)
    gaussian = found.gaussian.result(emotions=emotions)
    if settings.kind == "gaussian":
        return gaussian
    if settings.kind == "neighbours":
        return NeighbourSpace.of(found.sample, gaussian, jitter=settings.jitter)
    centres = fit_centres(found.sample, gaussian, candidates=settings.components, seed=seed)

    def second(block: Columns) -> MixtureSums:
        sums = MixtureSums(centres)
        labels, rows = read(block)
        if labels:
            sums.update(labels, rows)
        return sums

    return _merged(chosen, second, lambda: MixtureSums(centres), pool).result()


class _GaussianAndSample(NamedTuple):
    """What the first pass finds."""

    gaussian: GaussianSums
    sample: FeatureSample

    @staticmethod
    def empty(space: LabelSpace, size: int) -> "_GaussianAndSample":
        return _GaussianAndSample(GaussianSums(labels=space.labels), FeatureSample(size))

    def merge(self, other: "_GaussianAndSample") -> "_GaussianAndSample":
        return _GaussianAndSample(self.gaussian.merge(other.gaussian), self.sample.merge(other.sample))


def _merged(rows: Dataset, part: Callable[[Columns], S], empty: Callable[[], S], pool: Pool | None) -> S:
    def summed(batch: Columns) -> Columns:
        return {"sums": np.array([pickle.dumps(part(batch))], dtype=object)}

    total = empty()
    # One partial sum at a time: the driver's memory does not grow with the data set.
    parts = rows.map_batches(
        summed, batch_size=BATCH_ROWS, batch_format="numpy", **selectors_of(pool)
    ).iter_rows()
    with waiting_shown(current_step(), light(pool or ANYWHERE)):
        for row in parts:
            total = total.merge(pickle.loads(row["sums"]))
    return total


def _checked(rows: Dataset, columns: Sequence[str], pool: Pool | None) -> Dataset:
    """The columns alone. A schema that only running the dataset would tell is left to the run."""
    schema = rows.schema(fetch_if_missing=False)
    if schema is not None and (missing := [name for name in columns if name not in schema.names]):
        raise ValueError(
            f"columns {', '.join(missing)} are missing: the dataset has {', '.join(schema.names)}"
        )
    return rows.select_columns(list(columns), **selectors_of(pool))


def _stack(column: NDArray[Any]) -> NDArray[np.float64]:
    """(B, D) from a tensor column or a column of lists."""
    return np.stack([np.asarray(row, dtype=np.float64) for row in column])
