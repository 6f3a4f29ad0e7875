"""Label spaces: which emotions a run tells apart, their order and their valence.

EmoSet has Mikels' eight. Other data sets have other classes, or those that a user names.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

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
Valence = Literal["positive", "negative"]
OWN = "own"
"""Name of every label space of a user's own."""
LONGEST_LABEL = 64
"""Longest label of a user's own, in bytes of UTF-8: it is part of the names of files."""


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

    def valence(self, label: str) -> Valence | None:
        """`positive`, `negative`, or None for a label that may be either.

        Raises:
            ValueError: for an unknown label, listing the known ones.
        """
        self._require(label)
        return "positive" if label in self.positive else "negative" if label in self.negative else None

    @property
    def valences(self) -> dict[str, Valence]:
        """Valence of every label that has one."""
        known = ((label, self.valence(label)) for label in self.labels)
        return {label: side for label, side in known if side is not None}

    @property
    def has_valence(self) -> bool:
        """Whether positive can be told from negative: there are labels of both."""
        return bool(self.positive) and bool(self.negative)

    def stated(self) -> dict[str, Any]:
        """Labels and valences as plain values, from which `stated_space` makes the space again."""
        return {"labels": list(self.labels), "valences": self.valences}

    def _require(self, label: str) -> None:
        if label not in self.labels:
            kind = "" if self.name == OWN else f"{self.name} "
            raise ValueError(f"unknown {kind}label {label!r}: expected one of {', '.join(self.labels)}")


MIKELS = LabelSpace("mikels", EMOTIONS, POSITIVE, frozenset(EMOTIONS[4:]))
"""EmoSet and FI."""

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


def stated_space(labels: Sequence[str], valences: Mapping[str, Valence]) -> LabelSpace:
    """The label space with these labels in this order: a known one, or one of a user's own.

    Args:
        labels: distinct, as `normalise_label` leaves them.
        valences: of those labels that have one.

    Raises:
        ValueError: fewer than two labels, one that is there twice, or a valence of something else.
    """
    if len(labels) < 2:
        raise ValueError(f"expected two labels or more, got {', '.join(labels) or 'none'}")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(f"the label {twice[0]!r} is there {Counter(labels)[twice[0]]} times: name it once")
    if unknown := [label for label in valences if label not in labels]:
        raise ValueError(
            f"{unknown[0]!r} has a valence but is no label: expected some of {', '.join(labels)}"
        )
    sides = (
        frozenset(name for name, side in valences.items() if side == wanted)
        for wanted in ("positive", "negative")
    )
    own = LabelSpace(OWN, tuple(labels), *sides)
    return next((known for known in LABEL_SPACES.values() if known[1:] == own[1:]), own)


def normalise_label(text: str) -> str:
    """The one spelling of a label, which is the name of its folder in any case: `Very Calm` is `very_calm`.

    Raises:
        ValueError: a label that is empty, too long for a file name, or has other characters than letters,
            digits, `_` and `-`.
    """
    label = unicodedata.normalize("NFC", "_".join(text.lower().replace("_", " ").split()))
    strange = [character for character in label if not _is_plain(character)]
    if not label or strange or label.startswith("-"):
        what = f"holds {strange[0]!r}" if strange else "is empty" if not label else "starts with '-'"
        raise ValueError(
            f"the label {text!r} {what}: labels are part of the names of files, so take letters, digits, _ "
            f"and - alone"
        )
    if len(label.encode()) > LONGEST_LABEL:
        raise ValueError(
            f"the label {text[:20]!r}... has {len(label.encode())} bytes: take at most {LONGEST_LABEL}"
        )
    return label


def _is_plain(character: str) -> bool:
    return character in "_-" or unicodedata.category(character)[0] in "LMN"
