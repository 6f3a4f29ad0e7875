"""PNG files without what their pictures do not need: texts and colour profiles of any size."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE = b"iCCP"
_KEPT = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts that may say which side is up."""
_FRAME = 12
"""Bytes of a chunk around its content: length, name and checksum."""


def without_texts(data: bytes) -> bytes:
    """A PNG without texts and colour profile; other data as it is.

    Generators keep whole workflows in texts, and profiles of printers take megabytes. Pillow refuses the
    picture when one of them is large or damaged, although viewers show it.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept, start, place = [], 0, len(_SIGNATURE)
    while place + _FRAME <= len(data):
        end = place + _FRAME + int.from_bytes(data[place : place + 4])
        if end > len(data):
            break  # cut: whoever reads it says so
        if _is_dropped(data, place):
            kept.append(data[start:place])
            start = end
        place = end
    return b"".join([*kept, data[start:]]) if start else data


def _is_dropped(data: bytes, place: int) -> bool:
    name = data[place + 4 : place + 8]
    return name == _PROFILE or (name in _TEXTS and not data.startswith(_KEPT, place + 8))
