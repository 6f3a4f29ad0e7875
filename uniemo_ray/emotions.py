"""The one list of emotions: names, order and valence (Mikels' eight, as EmoSet uses them).

Data sets with other classes have a label space of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

EMOTIONS: tuple[str, ...] = (
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
)

POSITIVE: frozenset[str] = frozenset(EMOTIONS[:4])


def emotion_index(name: str) -> int:
    """Position of an emotion in `EMOTIONS`.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    if name not in EMOTIONS:
        raise ValueError(f"unknown emotion {name!r}: expected one of {', '.join(EMOTIONS)}")
    return EMOTIONS.index(name)


def valence(name: str) -> str:
    """`positive` for the first four emotions, `negative` for the last four."""
    return "positive" if EMOTIONS[emotion_index(name)] in POSITIVE else "negative"


class LabelSpace(NamedTuple):
    """The classes that a data set tells apart."""

    name: str
    labels: tuple[str, ...]
    """In the order of their indices."""
    positive: frozenset[str]
    """Labels of positive valence."""
    negative: frozenset[str]
    """Labels of negative valence; a label may be in neither set."""

    def position(self, label: str) -> int:
        """Index of a label.

        Raises:
            ValueError: for an unknown label, listing the known ones.
        """
        self._require(label)
        return self.labels.index(label)

    def valence(self, label: str) -> str | None:
        """`positive`, `negative`, or None for a label that may be either.

        Raises:
            ValueError: for an unknown label, listing the known ones.
        """
        self._require(label)
        return "positive" if label in self.positive else "negative" if label in self.negative else None

    def _require(self, label: str) -> None:
        if label not in self.labels:
            raise ValueError(f"unknown {self.name} label {label!r}: expected one of {', '.join(self.labels)}")


MIKELS = LabelSpace("mikels", EMOTIONS, POSITIVE, frozenset(EMOTIONS[4:]))
"""EmoSet and FI; the only space that stage 2 and generation know."""

EKMAN = LabelSpace(
    "ekman",
    ("anger", "disgust", "fear", "joy", "sadness", "surprise"),
    frozenset({"joy"}),
    frozenset({"anger", "disgust", "fear", "sadness"}),
)
"""EmotionROI. Surprise has no valence of its own."""

SENTIMENT = LabelSpace(
    "sentiment", ("positive", "negative"), frozenset({"positive"}), frozenset({"negative"})
)
"""Twitter I and II."""

LABEL_SPACES = {space.name: space for space in (MIKELS, EKMAN, SENTIMENT)}


def find_space(labels: Sequence[str]) -> LabelSpace:
    """The label space with just these labels in this order.

    Raises:
        ValueError: there is none, listing those that there are.
    """
    for space in LABEL_SPACES.values():
        if space.labels == tuple(labels):
            return space
    known = "; ".join(", ".join(space.labels) for space in LABEL_SPACES.values())
    raise ValueError(f"no label space has the labels {', '.join(map(str, labels))}: expected one of {known}")
