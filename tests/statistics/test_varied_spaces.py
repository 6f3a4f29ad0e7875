"""Emotion spaces of components and of neighbours, and the sample that both start from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.stats import multivariate_normal

from uniemo_ray.emotions import SENTIMENT
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.statistics.feature_sample import FeatureSample
from uniemo_ray.statistics.gaussian_space import GaussianSpace, GaussianSums
from uniemo_ray.statistics.load_space import load_space
from uniemo_ray.statistics.mixture_fit import _likelihood, fit_centres, shrunk_variance
from uniemo_ray.statistics.mixture_space import MixtureSpace
from uniemo_ray.statistics.mixture_sums import MixtureSums
from uniemo_ray.statistics.neighbour_space import NeighbourSpace

LABELS = SENTIMENT.labels
COUNT = 600
EMOTION = np.arange(COUNT) % 2
"""Of each image; the first emotion has three groups of images, the second has one."""
GROUP = np.where(EMOTION == 0, np.arange(COUNT) // 2 % 3, 0)
IDS = [f"train/{i}" for i in range(COUNT)]


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    """A scene of one group always comes with an object of that group."""
    rng = np.random.default_rng(0)
    centres = {"scene": rng.normal(size=(3, 5)) * 6, "object": rng.normal(size=(3, 4)) * 6}
    return {
        member: (centre[GROUP] + rng.normal(size=(COUNT, centre.shape[1]))).astype(np.float32)
        for member, centre in centres.items()
    }


def gaussian_of(features: dict[str, np.ndarray]) -> GaussianSpace:
    sums = GaussianSums(labels=LABELS)
    sums.update(EMOTION, features)
    return sums.result()


def sample_of(features: dict[str, np.ndarray], size: int = 1000) -> FeatureSample:
    sample = FeatureSample(size)
    sample.update(EMOTION, IDS, features)
    return sample


def mixture_of(
    features: dict[str, np.ndarray], candidates: tuple[int, ...] = (1, 2, 3, 4, 8)
) -> MixtureSpace:
    gaussian = gaussian_of(features)
    sums = MixtureSums(fit_centres(sample_of(features), gaussian, candidates=candidates, seed=0))
    sums.update(EMOTION, features)
    return sums.result()


def draws(space: EmotionSpace, emotion: str, count: int) -> list[dict[str, np.ndarray]]:
    generator = torch.Generator().manual_seed(0)
    drawn = [space.sample(emotion, generator).features for _ in range(count)]
    return [{member: value.numpy() for member, value in features.items()} for features in drawn]


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_a_sample_is_the_same_however_images_are_split(features: dict[str, np.ndarray], size: int) -> None:
    whole = sample_of(features, size)
    order = np.random.default_rng(1).permutation(COUNT)
    total = FeatureSample(size)
    for rows in np.array_split(order, 7):
        part = FeatureSample(size)
        part.update(EMOTION[rows], [IDS[i] for i in rows], {m: f[rows] for m, f in features.items()})
        total = part.merge(total)
    for emotion in range(2):
        mine, theirs = total.emotions[emotion], whole.emotions[emotion]
        assert mine.ids == theirs.ids
        assert len(mine.ids) == min(size, COUNT // 2)
        rows = [IDS.index(name) for name in mine.ids]
        assert set(EMOTION[rows]) == {emotion}
        for member in features:
            np.testing.assert_array_equal(mine.features[member], features[member][rows])


def test_the_number_of_components_follows_the_data(features: dict[str, np.ndarray]) -> None:
    space = mixture_of(features)
    used = (space.weight > 0).sum(axis=1)
    assert used.tolist() == [3, 1]
    assert space.weight.sum(axis=1) == pytest.approx([1, 1])
    assert space.counts.tolist() == [300, 300]
    assert mixture_of(features, (4,)).weight.shape == (2, 4)


def test_components_are_moments_of_their_images_pulled_to_the_whole(features: dict[str, np.ndarray]) -> None:
    space, gaussian = mixture_of(features), gaussian_of(features)
    for group in range(3):
        own = features["scene"][(EMOTION == 0) & (group == GROUP)].astype(np.float64)
        found = np.flatnonzero(np.abs(space.mean["scene"][0] - own.mean(axis=0)).max(axis=1) < 1e-9)
        assert len(found) == 1
        variance = (100 * own.var(axis=0) + 4 * gaussian.std["scene"][0] ** 2) / 104
        np.testing.assert_allclose(space.std["scene"][0, found[0]] ** 2, variance, rtol=1e-9)


def test_a_draw_takes_all_members_from_one_component(features: dict[str, np.ndarray]) -> None:
    own = [
        {m: f[(EMOTION == 0) & (group == GROUP)].mean(axis=0) for m, f in features.items()}
        for group in range(3)
    ]

    def nearest(draw: dict[str, np.ndarray], member: str) -> int:
        return int(np.argmin([np.square(draw[member] - centre[member]).sum() for centre in own]))

    def agreement(space: EmotionSpace) -> tuple[float, np.ndarray]:
        pairs = [(nearest(d, "scene"), nearest(d, "object")) for d in draws(space, LABELS[0], 600)]
        shares = np.bincount([scene for scene, _ in pairs], minlength=3) / len(pairs)
        return float(np.mean([scene == thing for scene, thing in pairs])), shares

    together, shares = agreement(mixture_of(features))
    assert together > 0.97
    np.testing.assert_allclose(shares, 1 / 3, atol=0.07)
    assert agreement(gaussian_of(features))[0] < 0.7  # members are drawn independently


def test_likelihood_is_that_of_the_mixture() -> None:
    rng = np.random.default_rng(3)
    seen, unseen = rng.normal(size=(40, 3)), rng.normal(size=(9, 3))
    labels = (np.arange(40) % 4 == 0).astype(np.int64)
    centres = np.stack([seen[labels == k].mean(axis=0) for k in range(2)])
    density = np.zeros(len(unseen))
    for k in range(2):
        own = seen[labels == k]
        variance = shrunk_variance(np.square(own - centres[k]).sum(axis=0), len(own), 1.0)
        density += len(own) / 40 * multivariate_normal(centres[k], np.diag(variance)).pdf(unseen)
    assert _likelihood(unseen, seen, centres, labels) == pytest.approx(np.log(density), rel=1e-10)


def test_mixture_parts_merge_in_any_order(features: dict[str, np.ndarray]) -> None:
    centres = fit_centres(sample_of(features, 200), gaussian_of(features), candidates=(3,), seed=0)
    whole, total = MixtureSums(centres), MixtureSums(centres)
    whole.update(EMOTION, features)
    for rows in np.array_split(np.random.default_rng(2).permutation(COUNT), 5):
        part = MixtureSums(centres)
        part.update(EMOTION[rows], {m: f[rows] for m, f in features.items()})
        total = part.merge(total)
    mine, theirs = total.result(), whole.result()
    np.testing.assert_array_equal(mine.weight, theirs.weight)
    for member in features:
        np.testing.assert_allclose(mine.mean[member], theirs.mean[member], atol=1e-10)
        np.testing.assert_allclose(mine.std[member], theirs.std[member], atol=1e-10)


def test_few_images_make_few_components() -> None:
    rng = np.random.default_rng(0)
    few = {"cls": rng.normal(size=(COUNT, 3)).astype(np.float32)[:20]}
    sums, sample = GaussianSums(labels=LABELS), FeatureSample(100)
    sums.update([0] * 19 + [1], few)
    sample.update([0] * 19 + [1], IDS[:20], few)
    gaussian = sums.result()
    centres = fit_centres(sample, gaussian, candidates=(2, 4, 8), seed=0)
    assert [len(centres.centres[emotion]) for emotion in range(2)] == [2, 1]
    mixture = MixtureSums(centres)
    mixture.update([0] * 19 + [1], few)
    draw = mixture.result().sample(LABELS[1], torch.Generator())
    np.testing.assert_allclose(draw.features["cls"], few["cls"][19], rtol=1e-6)


def test_a_neighbour_is_a_real_image_moved_a_little(features: dict[str, np.ndarray]) -> None:
    gaussian = gaussian_of(features)
    space = NeighbourSpace.of(sample_of(features), gaussian, jitter=0.3)
    generator = torch.Generator().manual_seed(0)
    moves, seen = [], set()
    for _ in range(400):
        draw = space.sample(LABELS[0], generator)
        row = IDS.index(draw.drawn_from.removeprefix("training image "))
        assert EMOTION[row] == 0
        seen.add(row)
        moves.append((draw.features["scene"].numpy() - features["scene"][row]) / gaussian.std["scene"][0])
    np.testing.assert_allclose(np.std(moves, axis=0), 0.3, rtol=0.15)
    assert len(seen) > 180
    still = NeighbourSpace.of(sample_of(features, 20), gaussian, jitter=0.0)
    draw = still.sample(LABELS[1], generator)
    row = IDS.index(draw.drawn_from.removeprefix("training image "))
    assert set(still.members) == {"scene", "object"}
    np.testing.assert_allclose(draw.features["object"], features["object"][row], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["mixture", "neighbours"])
def test_a_space_survives_its_file(features: dict[str, np.ndarray], tmp_path: Path, kind: str) -> None:
    neighbours = NeighbourSpace.of(sample_of(features), gaussian_of(features), jitter=0.1)
    space = mixture_of(features) if kind == "mixture" else neighbours
    path = tmp_path / "space.safetensors"
    space.save(path)
    loaded = load_space(path, LABELS)
    assert type(loaded) is type(space)
    assert loaded.counts.tolist() == space.counts.tolist()
    for emotion in LABELS:
        mine, theirs = (s.sample(emotion, torch.Generator().manual_seed(4)) for s in (space, loaded))
        assert mine.drawn_from == theirs.drawn_from
        assert all(torch.equal(mine.features[m], theirs.features[m]) for m in ("scene", "object"))
        assert mine.features["scene"].dtype == torch.float32
    with pytest.raises(ValueError, match="unknown emotion 'awe'"):
        loaded.sample("awe", torch.Generator())


def test_an_emotion_without_an_image_cannot_be_drawn(features: dict[str, np.ndarray]) -> None:
    sums, sample = GaussianSums(labels=LABELS), FeatureSample(100)
    own = {member: rows[EMOTION == 0] for member, rows in features.items()}
    sums.update([0] * 300, own)
    sample.update([0] * 300, IDS[:300], own)
    gaussian = sums.result(emotions=LABELS[:1])
    mixture = MixtureSums(fit_centres(sample, gaussian, candidates=(2,), seed=0))
    mixture.update([0] * 300, own)
    for space in (mixture.result(), NeighbourSpace.of(sample, gaussian, jitter=0.3)):
        assert torch.isfinite(space.sample(LABELS[0], torch.Generator()).features["scene"]).all()
        with pytest.raises(ValueError, match="holds no image of 'negative'"):
            space.sample(LABELS[1], torch.Generator())


def test_files_of_unknown_kinds_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path, counts = tmp_path / "space.safetensors", np.zeros(2, np.int64)
    emotions = ",".join(LABELS)
    save_file({"counts": counts}, path, metadata={"emotions": emotions, "kind": "flow"})
    with pytest.raises(ValueError, match="kind 'flow', which this version does not know"):
        load_space(path, LABELS)
    for kind in ("mixture", "neighbours"):
        save_file({"counts": counts}, path, metadata={"emotions": emotions, "kind": kind})
        with pytest.raises(ValueError, match=r"space\.safetensors is damaged"):
            load_space(path, LABELS)
