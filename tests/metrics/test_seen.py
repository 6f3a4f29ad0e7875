"""What the recogniser sees: variety, and whether it is what was asked for."""

import numpy as np
import pytest
from scipy import stats

from uniemo_ray.metrics.seen import Followed, Seen, count_seen, effective_number

SCENES, OBJECTS = ("beach", "forest", "city"), ("dog", "cake")
EMOTIONS = ["awe", "fear", "awe", "awe"]
NAMED = {
    "named_scenes": ["beach", "city", None, "moon"],
    "named_objects": ["dog", "dog", "dog", "cake"],
}


def counted(rows: slice = slice(None), **named: list[str | None]) -> Seen:
    return count_seen(
        EMOTIONS[rows],
        [0, 2, 1, 0][rows],
        [0, 1, 1, 1][rows],
        scene_names=SCENES,
        object_names=OBJECTS,
        **{name: values[rows] for name, values in named.items()},
    )


@pytest.mark.parametrize("counts", [[5], [3, 3, 3], [8, 1, 0, 1], [100, 1]])
def test_the_effective_number_is_the_exponential_of_the_entropy(counts: list[int]) -> None:
    assert effective_number(counts) == pytest.approx(np.exp(stats.entropy(counts)))


def test_nothing_has_no_effective_number() -> None:
    with pytest.raises(ValueError, match="no image was counted"):
        effective_number([0, 0])


def test_images_are_counted_within_their_emotion() -> None:
    seen = counted()
    assert {emotion: row.tolist() for emotion, row in seen.scenes.items()} == {
        "awe": [2, 1, 0],
        "fear": [0, 0, 1],
    }
    assert {emotion: row.tolist() for emotion, row in seen.objects.items()} == {"awe": [1, 2], "fear": [0, 1]}
    assert seen.effective("scenes")["fear"] == 1
    assert seen.effective("objects")["awe"] == pytest.approx(np.exp(stats.entropy([1, 2])))
    assert (seen.scene, seen.scene.share) == (Followed(0, 0), None)


def test_what_was_asked_for_is_looked_for() -> None:
    seen = counted(**NAMED)
    assert seen.scene == Followed(named=3, seen=2)  # no scene named once; `moon` is never seen
    assert seen.object == Followed(named=4, seen=2)
    assert (seen.scene.share, seen.object.share) == (pytest.approx(2 / 3), 0.5)


def test_parts_merge() -> None:
    whole = counted(**NAMED)
    parts = counted(slice(0, 1), **NAMED).merge(counted(slice(1, 4), **NAMED))
    assert (parts.scene, parts.object) == (whole.scene, whole.object)
    for mine, theirs in ((parts.scenes, whole.scenes), (parts.objects, whole.objects)):
        assert {k: v.tolist() for k, v in mine.items()} == {k: v.tolist() for k, v in theirs.items()}


def test_names_and_images_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        count_seen(
            ["awe"],
            [0],
            [0],
            scene_names=SCENES,
            object_names=OBJECTS,
            named_scenes=["beach", "city"],
            named_objects=["dog"],
        )
