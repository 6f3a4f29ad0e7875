"""What measuring a set of images reads of it."""

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.tables import conform, to_table
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.loop.steps import image_metrics
from uniemo_ray.loop.steps.evaluation import measure_step
from uniemo_ray.loop.steps.image_metrics import Judged
from uniemo_ray.metrics import emotion_judge
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE
from uniemo_ray.metrics.pairs import emotion_pairs
from uniemo_ray.metrics.published import draw_published_pairs
from uniemo_ray.models.clip import load_clip
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, read_shards

COUNT, WIDTH, PAIRS = 24, 5, 2
IDS = [f"i{number:02d}" for number in range(COUNT)]
LABELS = [EMOTIONS[number % 2] for number in range(COUNT)]


class Context:
    """What the steps of a run find in their folders."""

    name, fingerprint, pool = "evaluate-1", "f", "features"

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def artefacts(self) -> Store:
        return self.artefacts_of(self.name)

    def artefacts_of(self, name: str) -> Store:
        return open_store(str(self.root / name))


def write(context: Context, pictures: list[bytes], width: int = WIDTH) -> None:
    """Scores, features and images in two shards; the image of the last id is missing, with a reason."""
    rng = np.random.default_rng(0)
    reasons = np.array([None] * (COUNT - 1) + ["no_image"], dtype=object)
    columns = {field.name: np.full(COUNT, None, dtype=object) for field in SCORES}
    columns |= {"image_id": np.array(IDS), "emotion": np.array(LABELS), "reason": reasons}
    columns["probabilities"] = rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32)
    columns["clip_feature"] = rng.normal(size=(COUNT, width)).astype(np.float32)
    scores = conform(columns, SCORES)
    commit_shard(context.artefacts_of("scores"), "scores/part-0", scores, plan_hash="p")
    features = to_table(
        {
            "image_id": np.array(IDS),
            "emotion": np.array(LABELS),
            "clip_feature": rng.normal(size=(COUNT, width)),
        }
    )
    commit_shard(context.artefacts_of("features"), "train/part-0", features, plan_hash="p")
    table = pa.table(
        {"image_id": IDS, "emotion": LABELS, "image": pa.array([*pictures[:-1], None], pa.binary())}
    )
    for number, start in enumerate((0, 10)):
        part = table.slice(start, 10 if not number else None)
        commit_shard(context.artefacts_of("images"), f"images/part-{number}", part, plan_hash="p")


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def config(**evaluation: object) -> Config:
    data = {"kind": "emoset", "root": "unused"}
    return Config(data=data, diffusion={"size_px": 64}, evaluation={"pairs": PAIRS, **evaluation})


def test_without_a_network_that_looks_no_picture_is_read(tmp_path: Path) -> None:
    context = Context(tmp_path)
    write(context, [b"no picture"] * COUNT)
    found = measure_step(context, config(), Judged.of(config().data), images="images", scores="scores")
    assert found["images"] == COUNT - 1
    assert "fd_clip" in found


def test_only_pictures_of_the_pairs_are_decoded(tmp_path: Path, alexnet_dir: Path) -> None:
    ours = emotion_pairs(IDS[:-1], LABELS[:-1], pairs=PAIRS, seed=0)
    published = draw_published_pairs(IDS[:-1], LABELS[:-1], labels=EMOTIONS, seed=0)
    drawn = [*ours.values(), *published.values()]
    wanted = {int(row) for pairs in drawn for row in pairs.reshape(-1)}
    assert wanted < set(range(COUNT - 1))
    pictures = [b"no picture"] * COUNT
    for row in wanted:
        pictures[row] = png(row)
    context = Context(tmp_path)
    write(context, pictures)
    found = measure_step(
        context,
        config(weights_dir=str(alexnet_dir)),
        Judged.of(config(weights_dir=str(alexnet_dir)).data),
        images="images",
        scores="scores",
    )
    assert found["lpips_alex"] > 0
    assert found["lpips"] > 0


def test_the_public_judge_evaluates_and_the_scores_stay_the_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge names the emotion that each feature holds; the classifier's probabilities are made up."""
    context = Context(tmp_path)
    write(context, [b"no picture"] * COUNT)
    weights = tmp_path / "weights"
    weights.mkdir()
    state = {"fc.weight": torch.zeros(8, 768), "fc.bias": torch.zeros(8)}
    state["fc.bias"][EMOTIONS.index(LABELS[0])] = 1
    torch.save(state, weights / JUDGE_FILE)
    digest = sha256((weights / JUDGE_FILE).read_bytes()).hexdigest()
    monkeypatch.setattr(emotion_judge, "JUDGE_SHA256", digest)
    settings = config(weights_dir=str(weights))
    plain = measure_step(context, settings, Judged.of(settings.data), images="images", scores="scores")
    assert "emo_a" not in plain  # the run's CLIP is another than the judge's
    monkeypatch.setattr(image_metrics, "is_published_clip", lambda *_, **__: True)
    monkeypatch.setattr(image_metrics, "load_clip", lambda *_, **__: load_clip("tiny"))
    pictures = [png(number) for number in range(COUNT)]
    widened = Context(tmp_path / "wide")
    write(widened, pictures, width=768)
    found = measure_step(widened, settings, Judged.of(settings.data), images="images", scores="scores")
    wanted = LABELS[: COUNT - 1].count(LABELS[0]) / (COUNT - 1)
    assert found["emo_a"] == pytest.approx(wanted)
    scores = read_shards(widened.artefacts_of("scores"), "scores/").slice(0, COUNT - 1)
    predicted = np.stack(scores["probabilities"].to_numpy(zero_copy_only=False)).argmax(axis=1)
    own = np.mean([EMOTIONS[k] == label for k, label in zip(predicted, LABELS, strict=False)])
    assert found["emo_a_clip"] == pytest.approx(own)
    assert own != pytest.approx(wanted)
    assert {"sem_d", "sem_d_l14"} <= set(found)


def test_a_set_without_scores_is_named(tmp_path: Path) -> None:
    context = Context(tmp_path)
    empty = pa.Table.from_pylist([], schema=SCORES)
    commit_shard(context.artefacts_of("scores"), "scores/part-0", empty, plan_hash="p")
    with pytest.raises(ValueError, match=r"no image in .*images has scores"):
        measure_step(context, config(), Judged.of(config().data), images="images", scores="scores")
