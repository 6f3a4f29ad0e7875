"""The one list of emotions: names, order and valence (Mikels' eight, as EmoSet uses them)."""

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
