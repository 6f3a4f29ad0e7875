"""Files that are not what their names say: what they are instead, and what to do, from their first bytes."""

from pathlib import Path

HEAD_BYTES = 1024
"""As many bytes of a file as the functions here look at."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_CONVERT = "convert it to JPEG or PNG"
_PICTURES = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
)
_ARCHIVES = ((b"PK\x03\x04", "ZIP"), (b"\x1f\x8b", "gzip"), (b"Rar!", "RAR"), (b"7z\xbc\xaf", "7-Zip"))


def stand_in(head: bytes) -> str | None:
    """What lies in the place of a file that was never fetched; None if it may be the file.

    Args:
        head: the first `HEAD_BYTES` bytes.
    """
    if head.startswith(_POINTER):
        return "a pointer of Git LFS, not the file: run `git lfs pull` where it was cloned, or download it"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES) and b"<svg" not in head.lower():
        return "a web page or an error message, not the file: download it again, logged in if need be"
    return None


def stand_in_at(path: Path) -> str | None:
    """`stand_in` of a file; None for one that cannot be read."""
    return stand_in(_head(path))


def no_weights(path: Path) -> str | None:
    """What a file of weights is instead of one; None if it may be one, or cannot be read."""
    head = _head(path)
    if found := stand_in(head):
        return found
    if head and path.suffix == ".safetensors" and head[8:9] != b"{":
        is_pickled = head.startswith((b"PK\x03\x04", b"\x80"))
        return (
            "a file of torch.save under another name: save it as safetensors"
            if is_pickled
            else ("no safetensors file, or a damaged one: copy or download it again")
        )
    return None


def other_picture(head: bytes) -> str | None:
    """Which kind of file it is that people take for a picture of a readable format; None if unknown.

    Args:
        head: the first `HEAD_BYTES` bytes.
    """
    if head[4:8] == b"ftyp":
        kind = _of_brands(head)
        return kind and f"{kind}: {_CONVERT}"
    if b"<svg" in head.lower():
        return f"a drawing in SVG: {_CONVERT}"
    for sign, name in _PICTURES:
        if head.startswith(sign):
            return f"a {name} file: {_CONVERT}"
    for sign, name in _ARCHIVES:
        if head.startswith(sign):
            return f"a {name} archive: unpack it"
    return None


def _of_brands(head: bytes) -> str | None:
    """Kind of an ISO media file, which lists its brands first; None for AVIF, which is read if whole."""
    end = min(int.from_bytes(head[:4]), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _HEIC:
        return "a HEIC picture, as phones write it"
    if brands & {b"avif", b"avis"}:
        return None
    return "a HEIF picture of a kind that is not read" if brands & {b"mif1", b"msf1"} else "a video"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
