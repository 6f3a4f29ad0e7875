"""Content negotiation by the Accept header."""

from collections.abc import Sequence


def choose(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type that an Accept header prefers; the first of equals, None if none is acceptable.

    Args:
        accept: the header. An empty one accepts everything.
        offered: media types in the order of the server's preference.
    """
    preferences = [_preference(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best, best_quality = None, 0.0
    for kind in offered:
        quality = _quality(kind, preferences)
        if quality > best_quality:
            best, best_quality = kind, quality
    return best


def _preference(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return kind, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return kind, 0.0


def _quality(kind: str, preferences: list[tuple[str, float]]) -> float:
    """The quality of the most specific preference that covers a media type."""
    family = kind.partition("/")[0] + "/*"
    for pattern in (kind, family, "*/*"):
        found = [quality for accepted, quality in preferences if accepted == pattern]
        if found:
            return max(found)
    return 0.0
