"""Coefficients, emotion space and covariances through a real Ray Data."""

import numpy as np
import pyarrow as pa
import pytest
import ray

from uniemo_ray.config import EmotionSpaceConfig
from uniemo_ray.distributed import statistics
from uniemo_ray.distributed.statistics import compute_coefficients, compute_space
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import COEFFICIENTS
from uniemo_ray.statistics.coefficients import CoefficientSums
from uniemo_ray.statistics.feature_sample import FeatureSample
from uniemo_ray.statistics.gaussian_space import GaussianSums
from uniemo_ray.statistics.mixture_fit import fit_centres
from uniemo_ray.statistics.mixture_sums import MixtureSums
from uniemo_ray.statistics.neighbour_space import NeighbourSpace

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS = 500
RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(8), size=ROWS).astype(np.float32)
SCENES = [None if n % 7 == 0 else f"s{n % 5}" for n in range(ROWS)]
OBJECTS = [None if n % 11 == 0 else [f"o{n % 3}", f"o{n % 4}"][: n % 3] for n in range(ROWS)]
LABELS = RNG.integers(0, 8, size=ROWS)
IDS = [f"train/{n}" for n in range(ROWS)]
FEATURES = (RNG.normal(size=(ROWS, 6)) + LABELS[:, None]).astype(np.float32)


def attribute_rows() -> pa.Table:
    probabilities = pa.array(PROBABILITIES.tolist(), pa.list_(pa.float32(), 8))
    objects = pa.array(OBJECTS, pa.list_(pa.string()))
    columns = {"probabilities": probabilities, "scene": pa.array(SCENES, pa.string()), "objects": objects}
    return pa.table({**columns, "image": pa.array([b"left alone"] * ROWS)})


def feature_rows() -> ray.data.Dataset:
    rows = [
        {"image_id": name, "emotion": EMOTIONS[label], "cls_feature": row, "scene_feature": row[:2]}
        for name, label, row in zip(IDS, LABELS, FEATURES, strict=True)
    ]
    return ray.data.from_items(rows, override_num_blocks=9)


def test_coefficients_equal_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BATCH_ROWS", 40)
    tables = [attribute_rows().slice(start, 170) for start in (0, 170, 340)]
    found = compute_coefficients(ray.data.from_arrow(tables))
    sums = CoefficientSums()
    sums.update(PROBABILITIES, SCENES, OBJECTS)
    expected = sums.table()
    assert found.schema.equals(COEFFICIENTS)
    assert found.select(["attribute", "kind", "count"]).equals(
        expected.select(["attribute", "kind", "count"])
    )
    for name in COEFFICIENTS.names[3:]:
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), atol=1e-10)


def test_the_space_equals_that_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BATCH_ROWS", 40)
    members = {"cls": "cls_feature", "scene": "scene_feature"}
    found = compute_space(feature_rows(), members=members)
    sums = GaussianSums()
    sums.update(LABELS, {"cls": FEATURES, "scene": FEATURES[:, :2]})
    expected = sums.result()
    assert found.counts.tolist() == expected.counts.tolist() == np.bincount(LABELS).tolist()
    for member in members:
        np.testing.assert_allclose(found.mean[member], expected.mean[member], atol=1e-10)
        np.testing.assert_allclose(found.std[member], expected.std[member], atol=1e-10)


@pytest.mark.parametrize("kind", ["mixture", "neighbours"])
def test_other_kinds_equal_those_of_one_process(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(statistics, "BATCH_ROWS", 40)
    settings = EmotionSpaceConfig(kind=kind, components=(2, 3), sample=32)
    members = {"cls": "cls_feature", "scene": "scene_feature"}
    found = compute_space(feature_rows(), settings=settings, seed=3, members=members)
    features = {"cls": FEATURES, "scene": FEATURES[:, :2]}
    gaussian, sample = GaussianSums(), FeatureSample(32)
    gaussian.update(LABELS, features)
    sample.update(LABELS, IDS, features)
    if kind == "neighbours":
        expected = NeighbourSpace.of(sample, gaussian.result(), jitter=0.3)
        assert found.ids == expected.ids
        np.testing.assert_array_equal(found.features["cls"], expected.features["cls"])
        return
    sums = MixtureSums(fit_centres(sample, gaussian.result(), candidates=(2, 3), seed=3))
    sums.update(LABELS, features)
    np.testing.assert_array_equal(found.weight, sums.result().weight)
    np.testing.assert_allclose(found.mean["cls"], sums.result().mean["cls"], atol=1e-9)


def test_only_partial_sums_reach_the_driver() -> None:
    """One row per batch of rows: with 9 blocks at most 9, whatever the number of images."""
    partial: list[int] = []

    def count(found: object) -> object:
        partial.append(1)
        return found

    real = statistics.pickle.loads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics.pickle, "loads", lambda data: count(real(data)))
        compute_space(feature_rows(), members={"cls": "cls_feature"})
    assert 1 <= len(partial) <= 9


def test_a_missing_column_or_emotion_is_named() -> None:
    with pytest.raises(ValueError, match="columns scene, objects are missing: the dataset has probabilities"):
        compute_coefficients(ray.data.from_arrow(attribute_rows().select(["probabilities"])))
    cheerful = feature_rows().filter(lambda row: row["emotion"] in EMOTIONS[:4])
    with pytest.raises(ValueError, match="no training image of anger, disgust, fear, sadness"):
        compute_space(cheerful, members={"cls": "cls_feature"})
