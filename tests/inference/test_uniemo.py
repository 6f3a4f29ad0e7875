"""The model as a user meets it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import uniemo_ray
from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.data.images import normalise
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.inference.uniemo import UniEmo

RNG = np.random.default_rng(0)
ARRAY = RNG.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> UniEmo:
    return uniemo_ray.UniEmo.from_pretrained(model_folder)


def test_understanding_is_the_nets_own(model: UniEmo, parts) -> None:
    (result,) = model.understand([ARRAY], names=2)
    with torch.no_grad():
        seen = parts.net.understand(normalise(ARRAY[None], model.mean, model.std))
    assert list(result.emotions) == list(EMOTIONS)
    assert list(result.emotions.values()) == pytest.approx(seen.logits.softmax(dim=1)[0].tolist(), abs=1e-5)
    assert result.top == max(result.emotions, key=lambda name: result.emotions[name])
    positive = sum(list(result.emotions.values())[:4])
    assert result.valence == ("positive" if positive >= 0.5 else "negative")
    assert len(result.scenes) == 2
    assert result.scenes[0].score >= result.scenes[1].score
    nearest = int((seen.scene_embedding @ parts.net.scenes.embeddings.T).argmax())
    assert result.scenes[0].name == parts.net.scenes.names[nearest]
    assert result.scene_attention is None


def test_attention_maps_come_on_request(model: UniEmo) -> None:
    (result,) = model.understand([ARRAY], with_attention=True)
    for attention in (result.scene_attention, result.object_attention):
        assert attention is not None
        assert attention.shape == (4, 4)
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        assert attention.min() >= 0


def test_the_same_picture_in_any_form_gives_the_same_answer(model: UniEmo, tmp_path: Path) -> None:
    image = Image.fromarray(ARRAY)
    image.save(tmp_path / "a.png")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    opaque = Image.fromarray(np.dstack([ARRAY, np.full((32, 32), 255, np.uint8)]))
    forms = [ARRAY, image, tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), opaque]
    results = model.understand(forms)
    single = model.understand(image)[0]
    for result in (*results, single):
        assert list(result.emotions.values()) == pytest.approx(list(results[0].emotions.values()), abs=1e-6)
    assert model.understand([]) == []


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "I;16"])
def test_other_colour_modes_are_understood(model: UniEmo, mode: str) -> None:
    grey = Image.fromarray(ARRAY[..., 0])
    image = Image.fromarray(ARRAY[..., 0].astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert image.mode == mode
    (result,) = model.understand(image)
    if mode in ("L", "CMYK", "LA", "I;16"):
        expected = model.understand(grey)[0].emotions
        assert list(result.emotions.values()) == pytest.approx(list(expected.values()), abs=2e-2)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (ARRAY.astype(np.float32), r"image 0: expected a PIL image.*got float32 \(32, 32, 3\)"),
        (ARRAY[..., :2], r"got uint8 \(32, 32, 2\)"),
        (7, "got int"),
        (b"nonsense", "image 0 cannot be read: corrupt"),
        ("no/such/file.png", "no/such/file.png cannot be read"),
    ],
)
def test_what_is_no_picture_is_named(model: UniEmo, picture, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.understand([picture])


def test_a_fixed_pass_makes_an_answer_independent_of_its_company(model: UniEmo) -> None:
    rng = np.random.default_rng(8)
    pictures = [rng.integers(0, 255, (40, 50, 3), dtype=np.uint8) for _ in range(7)]
    together = model.understand(pictures, micro_batch=4)
    for picture, result in zip(pictures, together, strict=True):
        assert model.understand([picture], micro_batch=4)[0].emotions == result.emotions
    loose = model.understand(pictures)
    assert [result.top for result in loose] == [result.top for result in together]


def test_a_frozen_pass_gives_the_same_answers_without_running_python(model_folder: Path, monkeypatch) -> None:
    model = uniemo_ray.UniEmo.from_pretrained(model_folder)
    pictures = [RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8) for _ in range(5)]
    before = model.understand(pictures, micro_batch=2, names=3)
    model.freeze_understanding(2)
    monkeypatch.setattr(model.net, "understand", None)
    after = model.understand(pictures, micro_batch=2, names=3)
    for eager, frozen in zip(before, after, strict=True):
        assert frozen.emotions == eager.emotions
        assert (frozen.scenes, frozen.objects) == (eager.scenes, eager.objects)
    monkeypatch.undo()
    assert model.understand(pictures[:1], micro_batch=3)[0].top == before[0].top  # another size is not frozen


def test_requests_of_several_plans_share_a_micro_batch(model: UniEmo) -> None:
    awe = model.plan("awe", n=2, seed=3, micro_batch=4)
    fear = model.plan({"fear": 1}, "{} street", seed=9, micro_batch=4)
    images = model.paint([*awe.requests, *fear.requests], awe.settings, threads=1)
    alone = model.generate("fear", "{} street", seed=9, micro_batch=4, threads=1)[0]
    assert images[2].tobytes() == alone.tobytes()
    assert images[2].provenance == alone.provenance


def test_images_are_reproducible_and_carry_their_provenance(model: UniEmo, tmp_path: Path) -> None:
    images = model.generate("awe", n=3, seed=7)
    again = model.generate("awe", n=1, seed=8)[0]
    assert isinstance(images[0], Image.Image)
    assert images[0].size == (32, 32)
    assert images[1].tobytes() == again.tobytes() != images[0].tobytes()
    images[1].save(tmp_path / "awe.png")
    text = read_provenance((tmp_path / "awe.png").read_bytes())
    assert text == images[1].provenance
    assert (text["seed"], text["prompt"], text["emotions"], text["steps"]) == (
        8,
        "<emotion>",
        {"awe": 1.0},
        3,
    )
    assert text["attributes"][0]["scene"] in model.net.scenes.names
    assert text["model"] == model.parts.fingerprint
    assert any(key.endswith("seed") for key in images[1].info)


def test_equals_the_image_of_the_same_plan_row(model: UniEmo, model_folder: Path) -> None:
    """One way from emotion and seed to pixels, whether a user or the feedback loop asks."""
    generator = ImageGenerator(model_folder)
    plan = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=1,
        emotions=["fear"],
        seed=0,
        model=generator.fingerprint,
        diffusion=DiffusionConfig(size_px=32, steps=3),
        generation=GenerationConfig(micro_batch=4),
    ).table
    row = plan.to_pylist()[0]
    out = generator({key: plan[key].to_numpy(zero_copy_only=False) for key in plan.column_names})
    image = model.generate("fear", seed=row["seed"], micro_batch=4)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(out["image"][0]))), np.asarray(image))


def test_transfer_and_fusion(model: UniEmo) -> None:
    room = model.generate("awe", "{} room", seed=1)[0]
    assert room.provenance["prompt"] == "<emotion> room"
    plain = model.generate("awe", seed=1)[0]
    fused = {
        mix: model.generate({"awe": 3, "fear": 1, "disgust": 0}, seed=1, mix=mix)[0]
        for mix in ("condition", "guidance")
    }
    assert len({image.tobytes() for image in (room, plain, *fused.values())}) == 4
    assert fused["guidance"].provenance["emotions"] == {"awe": 0.75, "fear": 0.25}
    assert [a["emotion"] for a in fused["guidance"].provenance["attributes"]] == ["awe", "fear"]
    turned = model.generate({"fear": 0.25, "awe": 0.75}, seed=1)[0]
    assert turned.tobytes() == fused["condition"].tobytes()


def test_settings_are_taken(model: UniEmo) -> None:
    image = model.generate("awe", size=(48, 32), steps=2, guidance=1.5, scheduler="ddim")[0]
    assert image.size == (48, 32)
    text = image.provenance
    assert (text["width"], text["height"], text["steps"], text["guidance"], text["scheduler"]) == (
        48,
        32,
        2,
        1.5,
        "ddim",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"emotion": "joy"}, "unknown emotion 'joy': expected one of amusement, awe"),
        ({"emotion": {"awe": 1, "joy": 1}}, "unknown emotion 'joy'"),
        (
            {"emotion": {"awe": -0.5, "fear": 1}},
            "weight of 'awe' must be a finite number of at least 0, got -0.5",
        ),
        ({"emotion": {"awe": float("nan")}}, "weight of 'awe'"),
        ({"emotion": {"awe": 0.0}}, "must not all be 0"),
        ({"emotion": {}}, "must not all be 0"),
        ({"emotion": "sadness"}, "no image of 'sadness'"),
        ({"emotion": "awe", "prompt": "room"}, r"prompt 'room' has no \{\}: put it where the emotion goes"),
        ({"emotion": "awe", "size": 33}, "width must be a positive multiple of 4 px, got 33: try 32"),
        ({"emotion": "awe", "size": (32, 30)}, "height must be a positive multiple of 4 px, got 30"),
        ({"emotion": "awe", "n": 0}, "n must be at least 1, got 0"),
        ({"emotion": "awe", "mix": "stir"}, "mix must be 'condition' or 'guidance', got 'stir'"),
        ({"emotion": "awe", "threads": -1}, "threads must be at least 1, got -1"),
        ({"emotion": "awe", "steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_requests_say_what_to_do(model: UniEmo, options, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        model.generate(**options)
    assert "\n" not in str(error.value)


def test_save_and_load_round_trip(model: UniEmo, tmp_path: Path) -> None:
    fingerprint = model.save_pretrained(tmp_path / "copy", card="# Card")
    again = UniEmo.from_pretrained(str(tmp_path / "copy"))
    assert again.parts.fingerprint == fingerprint == model.parts.fingerprint
    assert again.parts.card == "# Card"
    assert again.generate("awe", seed=3)[0].tobytes() == model.generate("awe", seed=3)[0].tobytes()
