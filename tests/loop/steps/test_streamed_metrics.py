"""Metrics from sums of shards are those of all rows in memory, which plain numpy and SciPy compute here."""

from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from tests.loop.steps.test_image_metrics import Context, config
from uniemo_ray.distributed.shards.actors.tables import conform, to_table
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.loop.steps.evaluation import measure_step
from uniemo_ray.loop.steps.image_metrics import Judged
from uniemo_ray.loop.steps.scored_images import read_scored
from uniemo_ray.metrics import frechet, shard_sums
from uniemo_ray.metrics.pairs import emotion_pairs
from uniemo_ray.store.shards import commit_shard, committed

COUNT, WIDTH, SHARD, PAIRS = 1500, 12, 70, 40


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, np.ndarray]:
    """Score rows in many shards, of which every 50th has no scores; the features that they keep."""
    rng, context = np.random.default_rng(5), Context(tmp_path)
    columns = {field.name: np.full(COUNT, None, dtype=object) for field in SCORES}
    columns["image_id"] = np.array([f"r1-{EMOTIONS[i % 8]}-{i // 8}" for i in range(COUNT)])
    columns["emotion"] = np.array([EMOTIONS[i % 8] for i in range(COUNT)])
    columns["probabilities"] = rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32)
    columns["scene_probability"] = rng.random(COUNT, dtype=np.float32)
    columns["object_probability"] = rng.random(COUNT, dtype=np.float32)
    columns["clip_feature"] = rng.normal(3, 1, size=(COUNT, WIDTH)).astype(np.float32)
    columns["reason"] = np.array([None if i % 50 else "no picture" for i in range(COUNT)], dtype=object)
    table = conform(columns, SCORES)
    real = rng.normal(2.5, 1.2, size=(COUNT, WIDTH)).astype(np.float32)
    features = to_table(
        {"image_id": columns["image_id"], "emotion": columns["emotion"], "clip_feature": real}
    )
    for number, start in enumerate(range(0, COUNT, SHARD)):
        for step, folder, part in (("scores", "scores", table), ("features", "train", features)):
            store = context.artefacts_of(step)
            commit_shard(store, f"{folder}/part-{number:05d}", part.slice(start, SHARD), plan_hash="p")
    counted = np.array([reason is None for reason in columns["reason"]])
    return {name: column[counted] for name, column in columns.items()} | {"real": real}


def distance(mine: np.ndarray, real: np.ndarray) -> float:
    """The formula as it is written, with SciPy's matrix root."""
    means = [rows.astype(np.float64).mean(axis=0) for rows in (mine, real)]
    first, second = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (mine, real))
    root = linalg.sqrtm(first @ second).real
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * root))


def test_sums_of_shards_are_the_metrics_of_all_rows(
    tmp_path: Path, rows: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pieces, so that rows are summed in many parts: the old formula to 1e-9."""
    monkeypatch.setattr(frechet, "GATHERED", 100)
    settings = config(pairs=PAIRS)
    found = measure_step(
        Context(tmp_path), settings, Judged.of(settings.data), images="images", scores="scores"
    )
    wanted = np.array([EMOTIONS.index(name) for name in rows["emotion"]])
    hits = rows["probabilities"].argmax(axis=1) == wanted
    own = rows["probabilities"].astype(np.float64)[np.arange(len(wanted)), wanted]
    best = np.fmax(rows["scene_probability"], rows["object_probability"]).astype(np.float64)
    pairs = emotion_pairs(rows["image_id"].tolist(), rows["emotion"].tolist(), pairs=PAIRS, seed=0)
    wide = rows["clip_feature"].astype(np.float64)
    gaps = {name: ((wide[p[:, 0]] - wide[p[:, 1]]) ** 2).mean() for name, p in pairs.items()}
    expected = {
        "emo_a_clip": hits.mean(),
        "emo_a_clip_probability": own.mean(),
        "sem_c_clip": best.mean(),
        "sem_d_clip": np.mean(list(gaps.values())),
        "fd_clip": distance(rows["clip_feature"], rows["real"]),
    }
    assert found["images"] == len(wanted) == COUNT - COUNT // 50
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    errors = {
        "sem_c_clip": best.std(ddof=1) / np.sqrt(len(best)),
        "emo_a_clip": hits.std() / np.sqrt(len(hits)),
    }
    assert {name: found["standard_errors"][name] for name in errors} == pytest.approx(errors, rel=1e-9)
    emotions = np.array([EMOTIONS[i % 8] for i in range(COUNT)])
    for name in EMOTIONS:
        mine = rows["clip_feature"][rows["emotion"] == name]
        by_emotion = distance(mine, rows["real"][emotions == name])
        assert found["per_emotion"][name]["fd_clip"] == pytest.approx(by_emotion, rel=1e-9)
        assert found["per_emotion"][name]["sem_d_clip"] == pytest.approx(gaps[name], rel=1e-9)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_tasks_find_the_same_to_the_last_bit(
    tmp_path: Path, rows: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces are added up in their order, whichever task is faster."""
    monkeypatch.setattr("uniemo_ray.loop.steps.image_metrics.ROWS_PER_TASK", 300)
    monkeypatch.setattr("uniemo_ray.loop.steps.feature_sums.ROWS_PER_TASK", 300)
    first, second = (
        measure_step(
            Context(tmp_path),
            config(pairs=PAIRS),
            Judged.of(config(pairs=PAIRS).data),
            images="images",
            scores="scores",
        )
        for _ in range(2)
    )
    assert first == second


def test_only_the_shards_of_the_wanted_images_are_read(tmp_path: Path, rows: dict[str, np.ndarray]) -> None:
    scores = Context(tmp_path).artefacts_of("scores")
    found = read_scored(scores)
    assert found.ids.to_pylist() == rows["image_id"].tolist()
    assert (found.rows, len(found.left_out)) == (COUNT, COUNT // 50)
    entries = list(committed(scores, "scores/").values())
    last = len(found.ids) - 1
    assert [e.name for e in found.shards_of(np.array([0, 1, last]), entries)] == [
        "scores/part-00000",
        f"scores/part-{COUNT // SHARD:05d}",
    ]
    assert found.shards_of(np.array([0]), entries[1:]) == entries[1:]  # other rows: look everywhere


def test_pieces_keep_the_order_and_both_limits() -> None:
    class Entry:
        def __init__(self, rows: int, size: int) -> None:
            self.rows, self.bytes = rows, size

    entries = [Entry(10, 5), Entry(10, 5), Entry(50, 5), Entry(1, 500), Entry(1, 5)]
    by_rows = shard_sums.pieces(entries, rows=25)  # type: ignore[arg-type]
    assert [len(piece) for piece in by_rows] == [2, 1, 2]
    by_bytes = shard_sums.pieces(entries, size=100)  # type: ignore[arg-type]
    assert [len(piece) for piece in by_bytes] == [3, 1, 1]
    assert [entry for piece in by_bytes for entry in piece] == entries
