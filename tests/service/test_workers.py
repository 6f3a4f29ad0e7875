"""The workers of the replicas over a tiny random model: what a result depends on, and cancelling."""

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import uniemo_ray
from tests.service.fake import picture
from uniemo_ray import UniEmo
from uniemo_ray.data.images import decode_rgb
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.service.backend import EncodedImage, GenerationParams, ImageInput, ImageOutput, Refusal
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ABANDONED, ImageGenerator, SamplingProgress
from uniemo_ray.service.workers.knowledge import trained_on
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.store.local import LocalStore

PARAMS = GenerationParams("default", {"awe": 1.0}, None, 1, 7, 3, None, None, None, "condition", "png")


@pytest.fixture(scope="module")
def registry(model_folder) -> ModelRegistry:
    return ModelRegistry(
        models={"default": str(model_folder)}, understand_micro_batch=3, generate_micro_batch=4
    )


@pytest.fixture(scope="module")
def model(registry) -> UniEmo:
    return registry.load("default")


@pytest.fixture(scope="module")
def understander(registry, model) -> Understander:
    return registry.understander(model)


@pytest.fixture(scope="module")
def image_generator(registry, model) -> ImageGenerator:
    return registry.image_generator(model)


def image_requests(image_generator: ImageGenerator, *all_params: GenerationParams):
    return [
        image_request for params in all_params for image_request in image_generator.image_requests(params)
    ]


def test_pictures_are_shown_as_the_model_wants_them(registry, parts):
    """Once: the shorter side goes to 8/7 of the input, and a second time the crop would be another."""
    encoder = parts.config.encoder.model_copy(update={"preprocess": "half"})
    model = UniEmo(replace(parts, config=parts.config.model_copy(update={"encoder": encoder})))
    (seen,) = registry.understander(model).understand([ImageInput(picture(0), False, "default")])
    (own,) = model.understand(picture(0), micro_batch=3)
    assert list(seen.result.emotions.values()) == pytest.approx(list(own.emotions.values()), abs=1e-6)
    (twice,) = model.understand(model.preprocess.square(decode_rgb(picture(0), 10**6)), micro_batch=3)
    assert list(twice.emotions.values()) != pytest.approx(list(own.emotions.values()), abs=1e-5)


def test_understanding_is_the_models_own_and_independent_of_its_batch(understander, model):
    images = [ImageInput(picture(i), i % 2 == 0, "default") for i in range(5)]
    together = understander.understand(images)
    for image, seen in zip(images, together, strict=True):
        alone = understander.understand([image])[0]
        assert isinstance(seen, ImageOutput)
        assert seen.result.emotions == alone.result.emotions
        assert (seen.result.scene_attention is not None) == image.with_attention
        direct = model.understand([image.data], micro_batch=3)[0]
        assert seen.result.emotions == direct.emotions
    assert [seen.batch for seen in together] == [3, 2, 3, 2, 3]


def test_an_image_that_cannot_be_decoded_fails_alone(understander):
    results = understander.understand(
        [ImageInput(data, False, "default") for data in (picture(1), picture(2)[:-900], picture(3))]
    )
    assert results[1] == Refusal("the file ends before the image does")
    assert isinstance(results[0], ImageOutput)
    assert isinstance(results[2], ImageOutput)


def test_bytes_depend_on_the_parameters_alone(image_generator):
    others = [
        replace(PARAMS, emotions={"fear": 1.0, "awe": 2.0}, seed=9, n=3),
        replace(PARAMS, steps=2, format="webp"),
        replace(PARAMS, seed=8, format="jpeg"),
    ]
    alone = image_generator(image_requests(image_generator, PARAMS))[0]
    crowd = image_generator(image_requests(image_generator, *others, PARAMS))
    assert crowd[-1].data == alone.data
    assert alone.data == image_generator(image_requests(image_generator, PARAMS))[0].data
    assert len({image.data for image in crowd}) == len(crowd)
    third = image_generator(image_requests(image_generator, replace(others[0], n=1, seed=11)))[0]
    assert third.data == crowd[2].data  # image i is that of seed + i


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_every_format_carries_its_provenance(image_generator, model, kind):
    image = image_generator(image_requests(image_generator, replace(PARAMS, format=kind)))[0]
    assert Image.open(io.BytesIO(image.data)).format == kind.upper()
    text = read_provenance(image.data)
    assert text == image.provenance
    assert (text["seed"], text["model"], text["micro_batch"]) == (7, model.parts.fingerprint, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": "very " * 60 + "{} room"}, "prompt"),
        ({"width": 30}, "width"),
        ({"emotions": {"sadness": 1.0}}, "emotion"),
    ],
)
def test_what_the_model_cannot_do_is_a_refusal(image_generator, change, field):
    found = image_generator.image_requests(replace(PARAMS, **change))
    result = found if isinstance(found, Refusal) else image_generator(found)[0]
    assert isinstance(result, Refusal), result
    assert (result.field, result.is_server_error) == (field, False)


def test_a_batch_stops_when_nobody_waits(image_generator):
    first, second = image_requests(image_generator, replace(PARAMS, steps=9, n=2))
    steps: list[SamplingProgress] = []

    def watch(progress: SamplingProgress) -> None:
        steps.append(progress)
        first.is_cancelled = progress.step >= 2
        second.is_cancelled = progress.step >= 4

    first.on_step = second.on_step = watch
    assert image_generator([first, second]) == [ABANDONED, ABANDONED]
    assert max(progress.step for progress in steps) == 4


def test_a_caller_that_still_waits_gets_the_image(image_generator):
    first, second = image_requests(image_generator, replace(PARAMS, n=2))
    expected = image_generator(image_requests(image_generator, replace(PARAMS, seed=8)))[0].data
    first.on_step = lambda _: setattr(first, "is_cancelled", True)
    assert image_generator([first, second])[1].data == expected


def test_previews_are_few_small_and_not_the_last_step(image_generator):
    image_request = image_requests(image_generator, replace(PARAMS, steps=20))[0]
    seen: list[SamplingProgress] = []
    image_request.on_step = seen.append
    image_generator([image_request])
    assert [progress.step for progress in seen] == list(range(1, 21))
    shown = [progress for progress in seen if progress.preview]
    assert [progress.step for progress in shown] == [3, 6, 9, 12, 15, 18]
    assert Image.open(io.BytesIO(shown[0].preview)).size == (32, 32)


def test_a_description_says_what_the_model_can(image_generator, model):
    found = describe(image_generator)
    assert found.fingerprint == model.parts.fingerprint
    assert "sadness" in found.emotions
    assert "sadness" not in found.paintable
    assert found.pixels_multiple == 4
    assert found.defaults == {"steps": 3, "guidance": 4.0, "width": 32, "height": 32, "prompt": "{}"}


def test_a_description_says_what_the_model_has_seen(image_generator, model):
    found = describe(image_generator)
    assert found.scenes == tuple(model.parts.net.scenes.names)
    card = Path(uniemo_ray.__file__).with_name("tiny") / "model" / "README.md"
    assert trained_on(card.read_text()) == "drawings (EmoSketch)"
    photographs = (
        "---\nmodel-index:\n- results:\n  - dataset: {type: emoset-118k, name: EmoSet-118K}\n---\n# x"
    )
    assert trained_on(photographs) == "the pictures of EmoSet-118K"
    for unknown in ("", "# A card", "---\n[\n---\n", "---\nmodel-index: []\n---\n", "---\nx: 1\n---\n"):
        assert trained_on(unknown) == ""


def test_a_model_that_only_understands_can_generate_nothing(registry, parts):
    image_generator = registry.image_generator(UniEmo(replace(parts, diffusion=None)))
    found = describe(image_generator)
    assert (found.paintable, found.emotions) == ((), parts.labels.labels)
    assert isinstance(image_generator.image_requests(PARAMS), Refusal)


@pytest.fixture
def generation_store(tmp_path) -> GenerationStore:
    return GenerationStore(LocalStore(tmp_path), ttl_s=60)


def run(image_generator, generation_store, generation, *, generate=None, timeout_s=60.0):
    turn = asyncio.Lock()

    async def generate_alone(image_request):
        async with turn:
            return (await asyncio.to_thread(image_generator, [image_request]))[0]

    work = execute_generation(
        generation.id,
        image_generator.image_requests(generation.params),
        generate=generate or generate_alone,
        generation_store=generation_store,
        timeout_s=timeout_s,
    )
    asyncio.run(work)
    return generation_store.state(generation)


def test_a_generation_from_queued_to_done(image_generator, generation_store):
    generation = generation_store.create(replace(PARAMS, n=2, steps=20), owner="ann", timeout_s=60)
    state = run(image_generator, generation_store, generation)
    assert state.status == "done"
    assert [(image.step, image.of) for image in state.images] == [(20, 20), (20, 20)]
    expected = image_generator(image_requests(image_generator, replace(generation.params, n=1, seed=8)))[0]
    assert generation_store.read_image(generation.id, "image-1") == expected.data
    assert state.images[1].provenance == expected.provenance
    assert state.images[1].batch == 1
    assert generation_store.read_image(generation.id, "preview-0") is not None


def test_a_generation_that_is_cancelled_stops_painting(image_generator, generation_store):
    generation = generation_store.create(replace(PARAMS, n=2), owner="ann", timeout_s=60)
    started: list[bool] = []

    async def generate_slowly(image_request):
        started.append(image_request.is_cancelled)
        generation_store.cancel(generation.id)
        while not image_request.is_cancelled:
            await asyncio.sleep(0.01)
        return ABANDONED

    assert run(image_generator, generation_store, generation, generate=generate_slowly).status == "cancelled"
    assert started == [False, False]
    assert generation_store.store.list() == [f"{generation.id}/cancel"]


class Hasty(GenerationStore):
    """Its generation is cancelled just before its image is written."""

    def write_image(self, generation_id: str, name: str, data: bytes) -> None:
        if name == "image-0":
            self.cancel(generation_id)
        super().write_image(generation_id, name, data)


def test_nothing_is_kept_of_what_is_cancelled_at_the_last_moment(image_generator, tmp_path):
    generation_store = Hasty(LocalStore(tmp_path), ttl_s=60)
    generation = generation_store.create(replace(PARAMS, n=2), owner="ann", timeout_s=60)
    assert run(image_generator, generation_store, generation).status == "cancelled"
    assert [path.name for path in (tmp_path / generation.id).iterdir()] == ["cancel"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"emotions": {"sadness": 1.0}}, "no image of 'sadness'"), ({"width": 30}, "multiple of 4")],
)
def test_a_generation_that_cannot_be_fails_with_the_reason(image_generator, generation_store, change, words):
    generation = generation_store.create(replace(PARAMS, **change), owner="ann", timeout_s=60)
    state = run(image_generator, generation_store, generation)
    assert state.status == "failed"
    assert words in state.problem.detail


def test_an_inner_error_or_too_long_a_time_fails_it_without_details(image_generator, generation_store):
    async def break_down(image_request):
        raise RuntimeError("secret")

    async def wait(image_request):
        await asyncio.sleep(60)

    async def dawdle(image_request):
        await asyncio.sleep(0.5)  # longer than it may take, but it has not begun yet
        image_request.on_step(SamplingProgress(1, 4, None))
        await asyncio.sleep(60)

    generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
    state = run(image_generator, generation_store, generation, generate=break_down)
    assert state.problem.is_server_error
    assert "secret" not in state.problem.detail
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
    state = run(image_generator, generation_store, generation, generate=wait, timeout_s=0.3)
    assert (state.status, state.problem.detail) == ("failed", "it waited in the queue too long")
    generation = generation_store.create(PARAMS, owner="ann", timeout_s=60)
    began = time.monotonic()
    state = run(image_generator, generation_store, generation, generate=dawdle, timeout_s=0.8)
    assert (state.status, state.problem.detail) == ("failed", "it took too long to generate")
    assert time.monotonic() - began > 1.3
    assert isinstance(image_generator(image_requests(image_generator, PARAMS))[0], EncodedImage)
