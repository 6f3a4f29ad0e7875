"""Inline inference: an endpoint understands images itself while it has room, and only then."""

import asyncio

import pytest

from uniemo_ray.service import deployments
from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, Refusal
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.pool import Pool
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry

IMAGE = ImageInput(b"", False, DEFAULT_MODEL)


def loaded(understand, *, max_images: int = 2) -> InlineInference:
    return InlineInference(understand, max_images=max_images)


async def refuse(image: ImageInput) -> Refusal:
    return Refusal(image.data.decode())


def test_results_come_in_order():
    images = [IMAGE._replace(data=word) for word in (b"a", b"b")]
    assert asyncio.run(loaded(refuse).understand(images)) == [Refusal("a"), Refusal("b")]


@pytest.mark.parametrize(
    ("images", "has_room"),
    [([IMAGE] * 2, True), ([IMAGE] * 3, False), ([IMAGE._replace(model="other")], False)],
)
def test_there_is_room_for_a_number_of_images_of_the_default_model(images, has_room):
    assert loaded(refuse).has_room(images) == has_room


def test_images_take_room_until_they_are_done_or_have_failed():
    async def fail(_image: ImageInput) -> Refusal:
        assert not inline.has_room([IMAGE])
        raise RuntimeError("broken")

    inline = loaded(fail, max_images=1)
    with pytest.raises(RuntimeError):
        asyncio.run(inline.understand([IMAGE]))
    assert inline.has_room([IMAGE])


def test_an_endpoint_that_cannot_load_the_model_does_not_come_up(tmp_path):
    registry = ModelRegistry(models={DEFAULT_MODEL: str(tmp_path / "gone")})
    with pytest.raises(ValueError, match="gone"):
        deployments._load_inline(registry, Pool(), Limits(), MemoryBudget.of(Limits()))
