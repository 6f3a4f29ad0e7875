"""What an actor loads for a baseline: plan rows in, images out, by the files that training has left."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from uniemo_ray.baselines.generation.mapping import EmotionClouds, EmotionMapper, MapperShape
from uniemo_ray.baselines.generation.painters import MapperPainter, PlainPainter, TokenPainter
from uniemo_ray.baselines.generation.plan import BaselinePlan
from uniemo_ray.baselines.generation.tokens import written
from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.models.diffusion import load_diffusion

LABELS = ("calm", "tense")
GENERATION = GenerationConfig(micro_batch=2)


def settings(folder: Path) -> DiffusionConfig:
    return DiffusionConfig(model=str(folder), size_px=16, steps=2)


def paint(painter: PlainPainter, prompts: dict[str, str], *, kind: Any) -> list[dict[str, Any]]:
    plan = BaselinePlan(
        baseline="b",
        kind=kind,
        prompts=prompts,
        per_emotion=2,
        seed=3,
        model=painter.fingerprint,
        diffusion=painter.diffusion,
        generation=GENERATION,
    )
    made = GenerateActor(painter, threads=1)(plan.slice(0, plan.num_rows))
    assert made.schema == IMAGES
    rows: list[dict[str, Any]] = made.to_pylist()
    assert [row["reason"] for row in rows] == [None] * 4
    return rows


def test_plain_prompts(sd_folder: Path) -> None:
    painter = PlainPainter(diffusion=settings(sd_folder), fingerprint="f")
    rows = paint(painter, {"calm": "a lion", "tense": "a skull"}, kind="plain")
    assert {row["model"] for row in rows} == {"f"}
    again = paint(painter, {"calm": "a lion", "tense": "a skull"}, kind="plain")
    assert [row["sha256"] for row in again] == [row["sha256"] for row in rows]
    assert len({row["sha256"] for row in rows}) == 4


def test_a_plan_of_another_model_is_refused(sd_folder: Path) -> None:
    actor = GenerateActor(PlainPainter(diffusion=settings(sd_folder), fingerprint="f"), threads=1)
    plan = BaselinePlan(
        baseline="b",
        kind="plain",
        prompts={"calm": "a lion"},
        per_emotion=1,
        seed=3,
        model="another",
        diffusion=settings(sd_folder),
        generation=GENERATION,
    )
    with pytest.raises(ValueError, match="the plan was made for model 'another', this is 'f'"):
        actor(plan.slice(0, 1))


def test_learnt_words_of_a_file(sd_folder: Path, tmp_path: Path) -> None:
    words = load_diffusion(str(sd_folder)).embed_words(["lion", "skull"])
    save_file({"vectors": words[:, None].contiguous()}, tmp_path / "net.safetensors")
    learnt = TokenPainter(
        diffusion=settings(sd_folder),
        fingerprint="f",
        weights=f"{tmp_path}/net.safetensors",
        labels=LABELS,
    )
    found = paint(learnt, dict.fromkeys(LABELS, written("a {}", 1)), kind="emotion")
    plain = PlainPainter(diffusion=settings(sd_folder), fingerprint="f")
    expected = paint(plain, {"calm": "a lion", "tense": "a skull"}, kind="plain")
    assert pixels(found) == pixels(expected)


def test_a_mapping_and_its_clouds_of_files(sd_folder: Path, tmp_path: Path) -> None:
    shape = MapperShape(hidden=5)
    torch.manual_seed(0)
    mapper = EmotionMapper(6, 16, shape)
    save_file(mapper.state_dict(), tmp_path / "net.safetensors")
    clouds = EmotionClouds(torch.zeros(2, 6), torch.full((2, 6), 40.0))
    save_file(clouds.tensors(), tmp_path / "clouds.safetensors")
    painter = MapperPainter(
        diffusion=settings(sd_folder),
        fingerprint="f",
        mapper=f"{tmp_path}/net.safetensors",
        clouds=f"{tmp_path}/clouds.safetensors",
        shape=shape,
        labels=LABELS,
    )
    rows = paint(painter, dict.fromkeys(LABELS, written("{}", 1)), kind="emotion")
    assert len({row["sha256"] for row in rows}) == 4
    made, _ = painter(device="cpu", dtype=None)
    drawn = made.conditions.draw("tense", rows[1]["seed"])  # type: ignore[attr-defined]
    torch.testing.assert_close(drawn, mapper(clouds.draw(1, rows[1]["seed"])[None]).detach())


def pixels(rows: list[dict[str, Any]]) -> list[bytes]:
    """The pictures without what their files say of them."""
    return [Image.open(io.BytesIO(row["image"])).tobytes() for row in rows]


def test_a_label_that_was_not_learnt_is_a_reason(sd_folder: Path, tmp_path: Path) -> None:
    save_file({"vectors": torch.zeros(1, 1, 16)}, tmp_path / "net.safetensors")
    painter = TokenPainter(
        diffusion=settings(sd_folder),
        fingerprint="f",
        weights=f"{tmp_path}/net.safetensors",
        labels=("calm",),
    )
    plan = BaselinePlan(
        baseline="b",
        kind="emotion",
        prompts={"bored": written("{}", 1)},
        per_emotion=1,
        seed=3,
        model="f",
        diffusion=settings(sd_folder),
        generation=GENERATION,
    )
    made: pa.Table = GenerateActor(painter, threads=1)(plan.slice(0, 1))
    assert "no word was learnt for 'bored'" in made["reason"][0].as_py()
