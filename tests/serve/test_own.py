"""The light path: an endpoint looks at pictures itself while it has room, and only then."""

import asyncio

import pytest

from serve.backend import DEFAULT_MODEL, Look, Refusal
from serve.own import OwnLooks

LOOK = Look(b"", False, DEFAULT_MODEL)


def loaded(understand, *, most: int = 2) -> OwnLooks:
    own = OwnLooks(lambda: understand, most=most)
    own.loading.join()
    return own


async def refuse(look: Look) -> Refusal:
    return Refusal(look.data.decode())


def test_results_come_in_order():
    looks = [LOOK._replace(data=word) for word in (b"a", b"b")]
    assert asyncio.run(loaded(refuse).understand(looks)) == [Refusal("a"), Refusal("b")]


@pytest.mark.parametrize(
    ("looks", "has_room"),
    [([LOOK] * 2, True), ([LOOK] * 3, False), ([LOOK._replace(model="other")], False)],
)
def test_room_is_for_so_many_pictures_of_the_default_model(looks, has_room):
    assert loaded(refuse).has_room(looks) == has_room


def test_pictures_at_work_take_room_and_give_it_back_even_when_they_fail():
    async def fail(_look: Look) -> Refusal:
        assert not own.has_room([LOOK])
        raise RuntimeError("broken")

    own = loaded(fail, most=1)
    with pytest.raises(RuntimeError):
        asyncio.run(own.understand([LOOK]))
    assert own.has_room([LOOK])


def test_without_a_model_there_is_no_room_and_the_log_says_why(caplog):
    def broken():
        raise ValueError("no model folder")

    own = OwnLooks(broken, most=2)
    own.loading.join()
    assert not own.has_room([LOOK])
    assert "cannot load the model itself" in caplog.text
