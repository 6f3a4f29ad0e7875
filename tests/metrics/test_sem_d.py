"""Sem-D."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.models.tiny import write_clip
from uniemo_ray.metrics.sem_d import is_published_clip, sem_d
from uniemo_ray.models import weights_folder
from uniemo_ray.models.clip import CONFIG_FILE, WEIGHTS_FILE
from uniemo_ray.store.local import LocalStore


def test_mean_squared_distance_over_all_pairs_of_one_emotion() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    labels = ["awe"] * 5 + ["fear"] * 4
    found = sem_d(rows.__getitem__, [f"{n}" for n in range(9)], labels, name="sem_d_clip", pairs=100, seed=0)
    expected = {}
    for emotion, own in (("awe", rows[:5]), ("fear", rows[5:])):
        expected[emotion] = np.mean([((a - b) ** 2).mean() for a, b in itertools.combinations(own, 2)])
    assert found.per_emotion == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(list(expected.values())))
    assert found.pairs == 10 + 6


def test_only_the_published_clip_earns_the_published_name() -> None:
    for clip in ("ViT-L-14", "ViT-L-14-quickgelu"):
        assert is_published_clip(clip, pretrained="openai")
        assert not is_published_clip(clip, pretrained="laion2b_s32b_b82k")
    for clip in ("ViT-B-32", "tiny", "ViT-L-14-336"):
        assert not is_published_clip(clip, pretrained="openai")


def test_published_weights_are_known_in_any_folder(tmp_path: Path) -> None:
    """`uniemo fetch` leaves a folder, which has no name of a model and no tag."""
    write_clip(tmp_path)
    weights, config = tmp_path / WEIGHTS_FILE, tmp_path / CONFIG_FILE
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert is_published_clip(str(tmp_path), pretrained=None, published=digest)
    assert is_published_clip("ViT-L-14-quickgelu", pretrained=str(weights), published=digest)
    assert not is_published_clip("ViT-L-14", pretrained=str(weights), published=digest)  # plain GELU
    assert not is_published_clip(str(tmp_path), pretrained=None)
    config.write_text(config.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    assert not is_published_clip(str(tmp_path), pretrained=None, published=digest)


def test_published_weights_are_known_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "stored")
    monkeypatch.setattr(weights_folder, "open_store", lambda _: LocalStore(tmp_path / "stored"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest = hashlib.sha256((tmp_path / "stored" / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert is_published_clip("s3://bucket/clip", pretrained=None, published=digest)
    assert not is_published_clip("s3://bucket/clip", pretrained=None)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        sem_d(
            np.full((2, 2), np.nan).__getitem__,
            ["a", "b"],
            ["awe", "awe"],
            name="sem_d_clip",
            pairs=1,
            seed=0,
        )


def test_a_folder_takes_no_weights_from_elsewhere(tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(ValueError, match="brings its own weights"):
        is_published_clip(str(tmp_path), pretrained=str(tmp_path / WEIGHTS_FILE))


def test_name_and_seed_reach_the_pairs() -> None:
    rows, ids = np.random.default_rng(1).normal(size=(12, 4)), [f"{n:02d}" for n in range(12)]
    first, again, other = (
        sem_d(rows.__getitem__, ids, ["awe"] * 12, name="sem_d_l14", pairs=5, seed=seed) for seed in (3, 3, 4)
    )
    assert first.name == "sem_d_l14"
    assert first.mean == again.mean
    assert first.mean != other.mean
