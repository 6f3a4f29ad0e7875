"""Steps, images, bytes and hours, by hand."""

import pytest

from uniemo_ray.config import Config
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.workload import (
    StageWork,
    cost,
    generated_images,
    mixed_images,
    stage_work,
    training_images,
    written_bytes,
)

SIZES = ["data.sketch_train=1600", "generation.per_emotion=32", "evaluation.plain_per_emotion=12"]
STAGE = ("epochs=2", "later_epochs=1", "batch_size=64")
EPOCHS = [f"stage{stage}.{value}" for stage in (1, 2) for value in STAGE]
DEMO = load_config(None, [*SIZES, *EPOCHS, "feedback.rounds=1"])


def test_steps_of_two_rounds() -> None:
    work = stage_work(DEMO, images=1600)
    assert [stage.name for stage in work] == ["understanding-1", "joint-1", "understanding-2", "joint-2"]
    assert [stage.steps for stage in work] == [
        50,
        50,
        26,
        26,
    ]  # 1600 / 64 twice; 1692 / 64 once, what fills no batch left out
    assert work[2].images == 1600 + 92  # a fifth would be 400, but the filter keeps 36 % of 256
    assert generated_images(DEMO) == 2 * 8 * 32 + 8 * 12


def test_the_filter_bounds_what_is_mixed() -> None:
    def mixed(**filter_: object) -> int:
        changed = DEMO.model_copy(update={"filter": DEMO.filter.model_copy(update=filter_)})
        return mixed_images(changed, 1600)

    assert mixed() == 92
    assert mixed(criteria=("emo",)) == 154
    assert mixed(eta=0, delta=100) == 256
    assert mixed_images(DEMO, 100) == 25


def test_bytes_by_hand() -> None:
    sizes = {"latent_pixels": 1024, "trained": (10, 20), "features": (5, 6), "model_bytes": 7}
    written = written_bytes(DEMO, images=1600, **sizes)
    assert written.latents == 1600 * (120_000 + 2048)
    assert written.images == round((512 + 96) * 64 * 64 * 1.6)
    assert written.mixed == round(92 * (64 * 64 * 1.6 + 2048))
    assert written.features == 4 * (5 * (2000 + 608) + 2 * 6 * 2000)
    assert written.checkpoints == 2 * (2 * 12 * 10 + 2 * 12 * 20)
    assert written.models == 3 * 7
    parts = (written.samples, written.latents, written.images, written.mixed, written.features, 1440, 21)
    assert written.total == sum(parts)
    crop = DEMO.model_copy(update={"diffusion": DEMO.diffusion.model_copy(update={"target": "crop"})})
    cropped = written_bytes(crop, images=1600, **sizes)
    assert (cropped.latents, cropped.mixed) == (0, round(92 * 64 * 64 * 1.6))


def test_stage_1_alone_makes_no_images() -> None:
    config = Config.model_validate({"stage1": {"epochs": 3, "batch_size": 64}})
    (only,) = stage_work(config, images=640, with_stage_2=False)
    assert only == StageWork("understanding", 640, 3, 30)
    assert generated_images(config, with_stage_2=False) == 0
    written = written_bytes(
        config,
        images=640,
        latent_pixels=9,
        trained=(10, 0),
        features=(5, 6),
        model_bytes=7,
        with_stage_2=False,
    )
    assert (written.latents, written.images, written.mixed, written.models) == (0, 0, 0, 14)
    assert written.features == 4 * 5 * 800


def test_hours_and_cost_by_hand() -> None:
    work = [StageWork("a", 7200, 10, 0)]
    found = cost(
        work, generated=3600, gpus=2, generating=2, images_per_second=10, generated_per_second=0.5, price=1.5
    )
    assert found.training_hours == pytest.approx(1.0)
    assert found.generation_hours == pytest.approx(1.0)
    assert found.gpu_hours == pytest.approx(4.0)
    assert found.price == pytest.approx(6.0)
    few = cost(
        work, generated=3600, gpus=2, generating=1, images_per_second=10, generated_per_second=0.5, price=1.5
    )
    assert few.generation_hours == pytest.approx(2.0)
    assert few.gpu_hours == pytest.approx(6.0)  # the GPU that idles is paid as well
    bare = cost(
        work,
        generated=3600,
        gpus=2,
        generating=2,
        images_per_second=10,
        generated_per_second=None,
        price=None,
    )
    assert (bare.generation_hours, bare.price, bare.gpu_hours) == (None, None, pytest.approx(2.0))


def test_size_of_the_training_split() -> None:
    assert training_images(DEMO, None) == 1600
    assert training_images(DEMO, 9) == 9
    emoset = Config.model_validate({"data": {"kind": "emoset", "root": "/data"}})
    assert training_images(emoset, None) == 94_481
    roi = Config.model_validate({"data": {"kind": "emotionroi", "root": "/data"}})
    with pytest.raises(ValueError, match="'emotionroi' is not known: give --train-images"):
        training_images(roi, None)


@pytest.mark.parametrize(
    ("data", "classes"),
    [
        ({"kind": "emotionroi", "root": "/data"}, 6),
        ({"kind": "folders", "root": "/data", "labels": "sentiment"}, 2),
        ({"kind": "folders", "root": "/data", "labels": ["calm", "tense", "dull"]}, 3),
        ({"kind": "emoset", "root": "/data", "valence": True}, 2),
    ],
)
def test_images_are_generated_for_each_class_of_the_run(data: dict[str, object], classes: int) -> None:
    config = Config.model_validate({"data": data})
    made = 2 * config.generation.per_emotion + config.evaluation.plain_per_emotion
    assert generated_images(config) == classes * made
