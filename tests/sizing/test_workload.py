"""Steps, images, bytes and hours, by hand."""

import pytest

from uniemo_ray.config import Config, load_config
from uniemo_ray.sizing.workload import (
    StageWork,
    cost,
    generated_images,
    stage_work,
    training_images,
    written_bytes,
)

SIZES = ["data.sketch_train=1600", "generation.per_emotion=32", "evaluation.plain_per_emotion=12"]
STAGE = ("epochs=2", "later_epochs=1", "batch_size=64")
EPOCHS = [f"stage{stage}.{value}" for stage in (1, 2) for value in STAGE]
DEMO = load_config(None, [*SIZES, *EPOCHS, "feedback.rounds=1"])


def test_steps_of_two_rounds() -> None:
    work = stage_work(DEMO, images=1600, gpus=2)
    assert [stage.name for stage in work] == ["understanding-1", "joint-1", "understanding-2", "joint-2"]
    assert [stage.steps for stage in work] == [50, 50, 29, 29]  # 1600 / 64 twice; 1856 / 64 once
    assert work[2].images == 1600 + 256  # a fifth would be 400, but 256 are generated in all
    assert generated_images(DEMO) == 2 * 8 * 32 + 8 * 12


def test_bytes_by_hand() -> None:
    written = written_bytes(DEMO, images=1600, latent_pixels=1024, trained=(10, 20), model_bytes=7)
    assert written.latents == 1600 * (120_000 + 2048)
    assert written.checkpoints == 2 * (2 * 12 * 10 + 2 * 12 * 20)
    assert written.models == 3 * 7
    assert written.total == sum((written.samples, written.latents, written.images, 1440, 21))
    crop = DEMO.model_copy(update={"diffusion": DEMO.diffusion.model_copy(update={"target": "crop"})})
    assert written_bytes(crop, images=9, latent_pixels=1, trained=(1, 1), model_bytes=1).latents == 0


def test_hours_and_cost_by_hand() -> None:
    work = [StageWork("a", 7200, 10, 0)]
    found = cost(work, generated=3600, gpus=2, images_per_second=10, generated_per_second=0.5, price=1.5)
    assert found.training_hours == pytest.approx(1.0)
    assert found.generation_hours == pytest.approx(1.0)
    assert found.gpu_hours == pytest.approx(4.0)
    assert found.price == pytest.approx(6.0)
    bare = cost(work, generated=3600, gpus=2, images_per_second=10, generated_per_second=None, price=None)
    assert (bare.generation_hours, bare.price, bare.gpu_hours) == (None, None, pytest.approx(2.0))


def test_size_of_the_training_split() -> None:
    assert training_images(DEMO, None) == 1600
    assert training_images(DEMO, 9) == 9
    emoset = Config.model_validate({"data": {"kind": "emoset", "root": "/data"}})
    assert training_images(emoset, None) == 94_481
    roi = Config.model_validate({"data": {"kind": "emotionroi", "root": "/data"}})
    with pytest.raises(ValueError, match="'emotionroi' is not known: give --train-images"):
        training_images(roi, None)
