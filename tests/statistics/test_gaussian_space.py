"""The emotion space: per-emotion Gaussians."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from uniemo_ray.emotions import EMOTIONS, SENTIMENT
from uniemo_ray.statistics.gaussian_space import GaussianSpace, GaussianSums
from uniemo_ray.statistics.load_space import load_space

LABELS = np.arange(400) % 8


@pytest.fixture
def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shift = LABELS[:, None]
    widths = {"scene": 4, "object": 4, "cls": 6}
    return {
        m: (rng.normal(size=(400, d)) * (1 + shift) + 10 * shift).astype(np.float32)
        for m, d in widths.items()
    }


def make_space(features: dict[str, np.ndarray]) -> GaussianSpace:
    sums = GaussianSums()
    sums.update(LABELS, features)
    return sums.result()


def test_mean_and_std_of_each_emotion_agree_with_numpy(features: dict[str, np.ndarray]) -> None:
    space = make_space(features)
    assert space.counts.tolist() == [50] * 8
    for member, rows in features.items():
        for emotion in range(8):
            own = rows[np.equal(LABELS, emotion)].astype(np.float64)
            np.testing.assert_allclose(space.mean[member][emotion], own.mean(axis=0), atol=1e-10)
            np.testing.assert_allclose(space.std[member][emotion], own.std(axis=0), atol=1e-10)


def test_parts_merge_in_any_order(features: dict[str, np.ndarray]) -> None:
    whole = make_space(features)
    order = np.random.default_rng(1).permutation(400)
    total = GaussianSums()
    for rows in np.array_split(order, 13):
        part = GaussianSums()
        part.update(LABELS[rows], {m: f[rows] for m, f in features.items()})
        total = part.merge(total)
    space = total.result()
    for member in features:
        np.testing.assert_allclose(space.mean[member], whole.mean[member], atol=1e-10)
        np.testing.assert_allclose(space.std[member], whole.std[member], atol=1e-10)


def test_samples_follow_the_gaussian_of_their_emotion(features: dict[str, np.ndarray]) -> None:
    space, generator = make_space(features), torch.Generator().manual_seed(0)
    drawn = torch.stack([space.sample("fear", generator).features["cls"] for _ in range(4000)]).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), space.mean["cls"][6], atol=0.5)
    np.testing.assert_allclose(drawn.std(axis=0), space.std["cls"][6], rtol=0.06)


def test_a_sample_is_a_function_of_its_generator(features: dict[str, np.ndarray]) -> None:
    space = make_space(features)
    first, again, other = (space.sample("awe", torch.Generator().manual_seed(s)).features for s in (1, 1, 2))
    assert list(first) == ["scene", "object", "cls"]
    assert first["cls"].shape == (6,)
    assert first["cls"].dtype == torch.float32
    assert all(torch.equal(first[m], again[m]) for m in first)
    assert not torch.equal(first["scene"], other["scene"])
    assert not torch.equal(first["scene"], first["object"])


def test_a_space_survives_its_file_bit_for_bit(features: dict[str, np.ndarray], tmp_path: Path) -> None:
    space = make_space({"cls": features["cls"]})
    space.save(tmp_path / "space.safetensors")
    loaded = load_space(tmp_path / "space.safetensors")
    np.testing.assert_array_equal(loaded.mean["cls"], space.mean["cls"])
    np.testing.assert_array_equal(loaded.std["cls"], space.std["cls"])
    np.testing.assert_array_equal(loaded.counts, space.counts)
    assert list(loaded.mean) == ["cls"]
    assert [p.name for p in tmp_path.iterdir()] == ["space.safetensors"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.safetensors cannot be read"):
        load_space(tmp_path / "gone.safetensors")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="text cannot be read"):
        load_space(tmp_path / "text")
    save_file({"x": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no emotion space"):
        load_space(tmp_path / "other.safetensors")


def test_an_emotion_without_an_image_is_named(features: dict[str, np.ndarray]) -> None:
    sums, rows = GaussianSums(), LABELS < 6
    sums.update(LABELS[rows], {"cls": features["cls"][rows]})
    with pytest.raises(ValueError, match="no training image of fear, sadness"):
        sums.result()
    space = sums.result(emotions=EMOTIONS[:6])
    assert torch.isfinite(space.sample("disgust", torch.Generator()).features["cls"]).all()
    with pytest.raises(ValueError, match="no image of 'fear'"):
        space.sample("fear", torch.Generator())


def test_bad_batches_are_refused() -> None:
    sums = GaussianSums()
    with pytest.raises(ValueError, match="unknown members"):
        sums.update([0], {"face": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="emotion indices"):
        sums.update([8], {"cls": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="expected 1 cls features, got 2"):
        sums.update([0], {"cls": np.zeros((2, 2))})


def test_a_space_of_other_labels_comes_back_only_as_that(tmp_path: Path) -> None:
    sums = GaussianSums(labels=SENTIMENT.labels)
    sums.update([0, 1, 1], {"cls": [[1.0], [2.0], [4.0]]})
    path = tmp_path / "space.safetensors"
    sums.merge(GaussianSums(labels=SENTIMENT.labels)).result().save(path)
    loaded = load_space(path, SENTIMENT.labels)
    assert (loaded.labels, loaded.counts.tolist()) == (SENTIMENT.labels, [1, 2])
    assert loaded.sample("positive", torch.Generator()).features["cls"].tolist() == [1.0]
    with pytest.raises(ValueError, match="unknown emotion 'awe': expected one of positive, negative"):
        loaded.sample("awe", torch.Generator())
    with pytest.raises(ValueError, match="is no emotion space of amusement"):
        load_space(path)


def test_nothing_can_be_drawn_from_an_empty_space() -> None:
    space = GaussianSpace.empty(["cls"], 3, SENTIMENT.labels)
    assert space.mean["cls"].shape == (2, 3)
    with pytest.raises(ValueError, match="holds no image of 'negative'"):
        space.sample("negative", torch.Generator())
