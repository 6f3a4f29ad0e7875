"""A folder that knows whether it is whole: format, version and a SHA-256 for every file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniemo_ray.foreign_files import stand_in_at
from uniemo_ray.inference.provenance import canonical_json, sha256_hex
from uniemo_ray.shipped import WEIGHTS
from uniemo_ray.store.base import Store
from uniemo_ray.store.fingerprint import file_sha256

CHECKSUMS = "checksums.json"
CONFIG = "config.json"
TRAINING = "training.json"
"""What the weights came from, which decides nothing any more."""
VALENCES = "valences"
"""Key of config.json with the valences of a user's own labels; absent where a known label space says them."""
FORMAT = "uniemo_ray model"
VERSION = 1
BASE = WEIGHTS
"""Where `BASE_PARTS` lie for a compact folder, whose config.json says `"base": "tiny"`."""
DIFFUSION = "diffusion"
BASE_PARTS = ("clip", DIFFUSION)
_NOT_MEANT = frozenset({"README.md", TRAINING})


def check_replaceable(store: Store) -> None:
    """Refuse to write a model folder over something else.

    Raises:
        ValueError: the place holds something that is no model folder.
    """
    if not store.is_empty() and not store.exists(CHECKSUMS):
        raise ValueError(f"{store.uri} holds something that is no model folder: choose an empty folder")


def write_checksums(folder: Path) -> str:
    """Write `checksums.json` over all files of a folder; returns the folder's fingerprint."""
    sums = {_relative(path, folder): file_sha256(path) for path in _files(folder)}
    base = base_of(folder)
    if base != folder:
        sums |= {
            _relative(path, base): file_sha256(path) for part in BASE_PARTS for path in _files(base / part)
        }
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return _fingerprint(sums)


def verify(folder: Path, *, without: Sequence[str] = ()) -> str:
    """Check version, presence and hash of every file; returns the folder's fingerprint.

    The fingerprint covers every file but the model card and the settings of the training: a better text, or
    an equal network that was trained otherwise, is no other model.

    Args:
        folder: the model folder.
        without: parts whose files are not looked at, because they were not copied.

    Raises:
        ValueError: one line that names the file, what is wrong with it and what to do.
    """
    read_config(folder)
    sums, base = _read_json(folder / CHECKSUMS), base_of(folder)
    for name, expected in sorted(sums.items()):
        if name.partition("/")[0] in without:
            continue
        path = (base if name.partition("/")[0] in BASE_PARTS else folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing from the model folder: copy or download the folder again")
        if file_sha256(path) != expected:
            if found := stand_in_at(path):
                raise ValueError(f"{path} is {found}")
            raise ValueError(
                f"{path} is damaged or was changed (its checksum is not that of {CHECKSUMS}): "
                f"copy or download the folder again"
            )
    return _fingerprint(sums)


def stated_files(folder: Path) -> tuple[frozenset[str], str]:
    """Files of a model folder and its fingerprint, as it states them; `verify` looks at the files."""
    sums = _read_json(folder / CHECKSUMS)
    return frozenset(sums), _fingerprint(sums)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder, checked for format and version.

    Raises:
        ValueError: when this is no model folder or one of another version.
    """
    if not folder.is_dir():
        raise ValueError(f"model folder {folder} does not exist: give a folder written by save_pretrained")
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder} is no model folder: it has no {CONFIG}, give one written by save_pretrained"
        )
    config = _read_json(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG} is not of a {FORMAT} (format {config.get('format')!r})")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{folder / CONFIG} has format version {config.get('version')!r}, this program reads version "
            f"{VERSION}: use the uniemo_ray that wrote it, or save the model again"
        )
    return config


def base_of(folder: Path) -> Path:
    """Where a model folder's `BASE_PARTS` lie: in itself, or in the package.

    Raises:
        ValueError: for a base that this program does not have.
    """
    base = _read_json(folder / CONFIG).get("base")
    if base not in (None, "tiny"):
        raise ValueError(f"{folder / CONFIG} is based on {base!r}, expected 'tiny': update uniemo_ray")
    return folder if base is None else BASE


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is missing from the model folder: copy or download the folder again")
    if found := stand_in_at(path):
        raise ValueError(f"{path} is {found}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}): copy or download the folder again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _fingerprint(sums: dict[str, Any]) -> str:
    meant = {name: value for name, value in sums.items() if name not in _NOT_MEANT}
    return sha256_hex(canonical_json(meant).encode())[:16]
