"""A small, made-up run with every part of a summary, and pictures of EmoSketch to go with it."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from uniemo_ray.config import Config
from uniemo_ray.data.emosketch.compose import draw_layout, render
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.report.figures import StageHistory
from uniemo_ray.report.samples import ShownSample
from uniemo_ray.report.summary import METRIC_NAMES, Summary


def understanding(accuracy: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    confusion = []
    for index in range(8):
        probabilities = np.full(8, (1 - accuracy) / 7 * 0.5)
        probabilities[(index + 1) % 8] += (1 - accuracy) / 2
        probabilities[index] = 0
        probabilities[index] = 1 - probabilities.sum()
        confusion.append(rng.multinomial(125, probabilities).tolist())
    per_class = {name: confusion[index][index] / 125 for index, name in enumerate(EMOTIONS)}
    share = sum(confusion[index][index] for index in range(8)) / 1000
    losses = {"loss": 0.812, "scene_loss": 0.31, "object_loss": 1.2, "class_loss": 0.87}
    return {"accuracy": share, "per_class": per_class, "confusion": confusion, "top2": 0.91,
            "two_class": 0.93, "losses": losses}  # fmt: skip


def generation(images: int, emo_a: float, seed: int, *, has_distance: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    per_emotion = {
        name: {
            "emo_a_clip": float(np.clip(emo_a + rng.normal(0, 0.1), 0, 1)),
            "sem_d_clip": 31 + rng.normal(),
        }
        for name in EMOTIONS
    }
    part = {
        "images": images, "emo_a_clip": emo_a, "emo_a_exact": emo_a - 0.02,
        "emo_a_clip_probability": emo_a - 0.1,
        "sem_c_clip": 0.93,
        "sem_d_clip": 31.42, "lpips_tiny": 0.2817,
        "standard_errors": {"sem_d_clip": 0.21, "lpips_tiny": 0.0012, "emo_a_clip": 0.016},
        "per_emotion": per_emotion,
    }  # fmt: skip
    return part | ({"fd_clip": 4.731} if has_distance else {})


@pytest.fixture
def values() -> dict[str, Any]:
    """`summary.json` as parsed JSON."""
    exact = load_rule().ceiling()
    config = Config.model_validate(
        {"run": "runs/demo", "data": {"sketch_train": 2000}, "stage1": {"epochs": 6}}
    )
    place = {"group": "all", "ranked": 800, "first_rank": 160, "end_rank": 640}
    band = [
        {**place, "criterion": "emo", "best_score": 0.981, "worst_score": 0.212},
        {**place, "criterion": "sem", "best_score": 0.999, "worst_score": 0.731},
    ]
    reasons = {"emo_too_high_rank": 160, "emo_too_low_rank": 160, "sem_too_high_rank": 95,
               "sem_too_low_rank": 100, "not_scored": 2}  # fmt: skip
    filter_ = {"total": 802, "ranked": 800, "kept": 284, "thresholds": band, "reasons": reasons,
               "not_scored": {"image_missing": 2}}  # fmt: skip
    names = ["ingest", "latents", "round_0_stage_1", "round_0_coefficients", "round_0_stage_2",
             "round_0_emotion_space", "round_0_generate", "round_0_score", "round_0_filter",
             "round_1_stage_1", "round_1_stage_2", "round_1_generate", "evaluate", "export"]  # fmt: skip
    return {
        "metric_names": METRIC_NAMES,
        "config": config.model_dump(mode="json"),
        "dataset": {
            "name": "EmoSketch", "sizes": {"train": 2000, "val": 500, "test": 1000},
            "ceiling": {"scene": exact.scene, "object": exact.object, "both": exact.both},
            "rejected": {"image_corrupt": 3},
        },
        "rounds": [
            {"round": 0, "understanding": understanding(0.76, 0), "generation": generation(800, 0.634, 1),
             "filter": filter_},
            {"round": 1, "understanding": understanding(0.78, 1), "generation": generation(800, 0.681, 2),
             "filter": None},
        ],
        "references": {
            "real": generation(1000, 0.806, 3, has_distance=False),
            "plain_prompt": generation(320, 0.312, 4),
        },
        "coefficients": {"mean_absolute_error": 0.0213},
        "steps": [{"name": name, "seconds": 3.0 * 1.37**i, "skipped": i < 4} for i, name in enumerate(names)],
        "environment": {"python": "3.11.9", "ray": "2.60.0", "torch": "2.9.0+cpu",
                        "machine": {"cpus": 2, "memory_gb": 15.6, "gpu": None}},
    }  # fmt: skip


@pytest.fixture
def summary(values: dict[str, Any]) -> Summary:
    return Summary.model_validate(values)


def picture(scene: str, object_: str, seed: int) -> bytes:
    rgb = render(draw_layout(np.random.default_rng(seed), scene=scene, object_=object_), size_px=64)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def samples() -> list[ShownSample]:
    """Four pictures of each emotion for the real set, the plain prompt and two rounds."""
    rule, rng = load_rule(), np.random.default_rng(0)
    found = []
    for index, emotion in enumerate(EMOTIONS):
        for source, round_ in (("real", None), ("plain_prompt", None), ("generated", 0), ("generated", 1)):
            for number in range(4):
                scene = str(rng.choice(rule.scenes, p=rule.scene_given_emotion[:, index]))
                object_ = str(rng.choice(rule.objects, p=rule.object_given_emotion[:, index]))
                score = float(rng.beta(3, 1))
                found.append(ShownSample(
                    f"{source}-{round_}-{emotion}-{number}", source, emotion,
                    picture(scene, object_, len(found)), round_,
                    None if source == "plain_prompt" else scene, 0.62 if source == "generated" else None,
                    None if source == "plain_prompt" else object_, 0.31 if source == "generated" else None,
                    score, emotion if score > 0.4 else EMOTIONS[(index + 1) % 8],
                    bool(rng.random() < 0.4) if round_ == 0 else None,
                ))  # fmt: skip
    return found


@pytest.fixture(scope="session")
def ranks() -> pa.Table:
    """Score and filter rows of 802 images, ranked globally, band 20 to 80 on both; two have no score."""
    rng = np.random.default_rng(0)
    ids = [f"r0-emotion-{EMOTIONS[i % 8]}-{i // 8:05d}" for i in range(802)]
    ranks = [[*rng.permutation(800).tolist(), None, None] for _ in range(2)]
    band = range(160, 640)
    return pa.table({
        "image_id": ids,
        "emotion": [EMOTIONS[i % 8] for i in range(802)],
        "emo_score": [None if r is None else 1 - r / 800 for r in ranks[0]],
        "sem_score": [None if r is None else 1 - r / 1600 for r in ranks[1]],
        "emo_rank": ranks[0], "sem_rank": ranks[1],
        "kept": [a in band and b in band for a, b in zip(*ranks, strict=True)],
    })  # fmt: skip


@pytest.fixture(scope="session")
def history() -> list[StageHistory]:
    rng = np.random.default_rng(0)
    found = []
    for round_ in (0, 1):
        for stage, names, count in (
            ("stage 1", ("scene_loss", "object_loss", "class_loss"), 420),
            (
                "stage 2",
                (
                    "scene_loss",
                    "object_loss",
                    "class_loss",
                    "understanding_loss",
                    "condition_loss",
                    "diffusion_loss",
                ),
                260,
            ),
        ):
            steps = np.arange(1, count + 1)
            losses = {}
            for index, name in enumerate(names):
                decay = 2.2 / (1 + round_) * np.exp(-steps / (60 + 30 * index)) + 0.2 + 0.1 * index
                losses[name] = (decay + rng.normal(0, 0.03, count)).tolist()
            losses["loss"] = np.mean(list(losses.values()), axis=0).tolist()
            found.append(StageHistory(round_, stage, steps.tolist(), losses))
    return found


@pytest.fixture(scope="session")
def coefficients() -> pa.Table:
    """The exact table of the labelling rule."""
    rows = [
        {"attribute": name, "kind": kind, "count": 40 + 7 * index}
        | {f"alpha_{emotion}": float(alpha[i]) for i, emotion in enumerate(EMOTIONS)}
        for index, ((kind, name), alpha) in enumerate(load_rule().alpha().items())
    ]
    return pa.Table.from_pylist(rows)
