"""The light path: an endpoint looks at pictures itself while it has room, and only then."""

import asyncio

import pytest

from uniemo_ray.service import deployments
from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, Refusal
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.pool import Pool
from uniemo_ray.service.workers.model_registry import ModelRegistry

LOOK = ImageInput(b"", False, DEFAULT_MODEL)


def loaded(understand, *, most: int = 2) -> InlineInference:
    return InlineInference(understand, most=most)


async def refuse(image: ImageInput) -> Refusal:
    return Refusal(image.data.decode())


def test_results_come_in_order():
    images = [LOOK._replace(data=word) for word in (b"a", b"b")]
    assert asyncio.run(loaded(refuse).understand(images)) == [Refusal("a"), Refusal("b")]


@pytest.mark.parametrize(
    ("images", "has_room"),
    [([LOOK] * 2, True), ([LOOK] * 3, False), ([LOOK._replace(model="other")], False)],
)
def test_room_is_for_so_many_pictures_of_the_default_model(images, has_room):
    assert loaded(refuse).has_room(images) == has_room


def test_pictures_at_work_take_room_and_give_it_back_even_when_they_fail():
    async def fail(_look: ImageInput) -> Refusal:
        assert not own.has_room([LOOK])
        raise RuntimeError("broken")

    own = loaded(fail, most=1)
    with pytest.raises(RuntimeError):
        asyncio.run(own.understand([LOOK]))
    assert own.has_room([LOOK])


def test_an_endpoint_that_cannot_load_the_model_does_not_come_up(tmp_path):
    registry = ModelRegistry(models={DEFAULT_MODEL: str(tmp_path / "gone")})
    with pytest.raises(ValueError, match="gone"):
        deployments._inline_inference(registry, Pool())
