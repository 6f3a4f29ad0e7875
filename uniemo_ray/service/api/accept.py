"""Which of several media types a caller wants."""

from collections.abc import Sequence


def choose(accept: str, offered: Sequence[str]) -> str | None:
    """The offered type that an Accept header likes best; the first of several equals, None for none.

    Args:
        accept: the header; empty means that anything will do.
        offered: types in the order of our own liking.
    """
    wishes = [_wish(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best, best_quality = None, 0.0
    for kind in offered:
        quality = _quality(kind, wishes)
        if quality > best_quality:
            best, best_quality = kind, quality
    return best


def _wish(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return kind, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return kind, 0.0


def _quality(kind: str, wishes: list[tuple[str, float]]) -> float:
    """The most exact wish that covers a type decides."""
    family = kind.partition("/")[0] + "/*"
    for pattern in (kind, family, "*/*"):
        found = [quality for wish, quality in wishes if wish == pattern]
        if found:
            return max(found)
    return 0.0
