"""Label spaces of every kind, for tests of what has to work in all of them."""

from collections.abc import Mapping, Sequence

import pytest

from uniemo_ray.emotions import EKMAN, MIKELS, SENTIMENT, LabelSpace, stated_space

OWN_CLASSES: Mapping[str, Sequence[str]] = {
    "calm": ["contentment", "awe"],
    "tense": ["anger", "fear"],
    "très_triste": ["sadness"],
}
"""Labels of a user's own, and the emotions of EmoSketch that they stand for."""
OWN = stated_space(list(OWN_CLASSES), {"calm": "positive", "tense": "negative"})
"""Three labels, of which one has no valence."""
BARE = stated_space(list(OWN_CLASSES), {})
"""The same without any valence."""
SPACES: Mapping[str, LabelSpace] = {"eight": MIKELS, "six": EKMAN, "two": SENTIMENT, "own": OWN, "bare": BARE}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
