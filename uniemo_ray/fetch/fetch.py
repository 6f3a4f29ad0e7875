"""Fetch a preset's weights into a store: whole files, one after the other, each recorded when it is there."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uniemo_ray.fetch.hub import Hub, Listing
from uniemo_ray.fetch.sources import Source
from uniemo_ray.store.base import Store
from uniemo_ray.store.fingerprint import file_sha256

RECORD = "fetched.json"
"""What came from where; its key `complete` says that nothing is missing."""
SCRATCH = ".uniemo-fetch"


@dataclass(frozen=True)
class Wanted:
    """One file to fetch."""

    name: str
    """In the repository."""
    key: str
    """In the layout."""

    @property
    def is_pickled(self) -> bool:
        """Whether it has to be converted."""
        return self.name.endswith(".bin")


@dataclass(frozen=True)
class Fetched:
    """Outcome of a call."""

    files: int
    bytes: int
    """Size of the newly fetched files."""
    kept: int
    """Files that an earlier call has fetched."""


def fetch(
    sources: tuple[Source, ...],
    store: Store,
    *,
    hub: Hub,
    scratch: Path,
    variant: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Fetched:
    """Bring every file of `sources` into `store`; a second call goes on where the first one stopped.

    Args:
        sources: of a preset.
        store: gets `clip/`, `diffusion/` and `fetched.json`.
        hub: where they come from.
        scratch: local folder for downloads; empty afterwards.
        variant: `fp16` takes the half-precision weights where the repository has them.
        say: gets a line per file.

    Raises:
        ValueError: what the hub lacks or refuses, or bytes that are not the stated ones.
    """
    say = say or (lambda line: None)
    record = _read_record(store)
    new_files = new_bytes = kept = 0
    for source in sources:
        listing = hub.list(source.repository, source.revision)
        for wanted in choose_files(source, listing, variant=variant):
            origin = _origin(source, listing, wanted)
            if _is_there(store, wanted.key, record["files"].get(wanted.key), origin):
                kept += 1
                continue
            size = listing.files[wanted.name].size
            say(f"{wanted.key} ({size / 1e6:.1f} MB) from {source.repository}")
            path = _bring(hub, listing, wanted, scratch=scratch / source.folder, known=dict(source.sha256))
            record["files"][wanted.key] = {**origin, "sha256": file_sha256(path), "size": path.stat().st_size}
            store.put_file(path, wanted.key)
            path.unlink()
            store.write_json(RECORD, record | {"complete": False})
            new_files, new_bytes = new_files + 1, new_bytes + size
    store.write_json(RECORD, record | {"complete": True})
    return Fetched(new_files, new_bytes, kept)


def choose_files(source: Source, listing: Listing, *, variant: str | None = None) -> list[Wanted]:
    """What is taken of a revision, and the name it gets.

    Weights of a variant get the plain name, so that every reader finds them.

    Raises:
        ValueError: naming the first file that the revision lacks.
    """
    missing = [name for name in source.files if name not in listing.files]
    small = [name for name in (*source.files, *source.optional) if name in listing.files]
    for sets in source.one_of:
        whole = [names for names in sets if listing.files.keys() >= set(names)]
        if not whole:
            missing.append(next(name for name in sets[0] if name not in listing.files))
        small += [name for names in whole for name in names]
    chosen = [Wanted(name, f"{source.folder}/{name}") for name in small]
    for stem in source.weights:
        found = next((name for name in _candidates(stem, variant) if name in listing.files), None)
        if found is None:
            missing.append(_candidates(stem, variant)[0])
            continue
        chosen.append(Wanted(found, f"{source.folder}/{stem}.safetensors"))
    if missing:
        at = f"{listing.repository} at {listing.commit[:12]}"
        raise ValueError(f"{at} has no {missing[0]}: choose another preset or variant")
    return chosen


def _candidates(stem: str, variant: str | None) -> list[str]:
    """File names of some weights, best first; a variant is never replaced by another one."""
    folder, _, name = stem.rpartition("/")
    # transformers and open_clip call their pickles otherwise than their safetensors
    pickled = {"model": "pytorch_model", "open_clip_model": "open_clip_pytorch_model"}.get(name, name)
    ending = f".{variant}" if variant and name != "open_clip_model" else ""
    base = f"{folder}/" if folder else ""
    return [f"{base}{name}{ending}.safetensors", f"{base}{pickled}{ending}.bin"]


def _origin(source: Source, listing: Listing, wanted: Wanted) -> dict[str, Any]:
    file = listing.files[wanted.name]
    return {"repository": source.repository, "commit": listing.commit, "file": asdict(file)}


def _is_there(store: Store, key: str, entry: dict[str, Any] | None, origin: dict[str, Any]) -> bool:
    if entry is None or {name: entry.get(name) for name in origin} != origin or not store.exists(key):
        return False
    local = store.local_path_or_none(key)
    return local is None or file_sha256(local) == entry["sha256"]


def _bring(hub: Hub, listing: Listing, wanted: Wanted, *, scratch: Path, known: dict[str, str]) -> Path:
    """Download, verify, and make it what readers expect; returns a local path."""
    path = scratch / listing.commit[:12] / wanted.name
    if not path.exists():  # left by a call that stopped between the download and the store
        hub.download(listing, wanted.name, path)
    if wanted.name in known and file_sha256(path) != known[wanted.name]:
        path.unlink()
        raise ValueError(f"{listing.repository} has another {wanted.name} than was pinned: it was removed")
    if wanted.is_pickled:
        from uniemo_ray.fetch.convert import convert_to_safetensors  # seconds of torch, seldom needed

        converted = convert_to_safetensors(path, path.with_suffix(".safetensors"))
        path.unlink()
        return converted
    if path.name == "model_index.json":
        _mark_absent(path)
    return path


def _mark_absent(path: Path) -> None:
    """Say in diffusers' own way that parts are left out which nothing here uses."""
    index = json.loads(path.read_text(encoding="utf-8"))
    for part in ("safety_checker", "feature_extractor", "image_encoder"):
        if part in index:
            index[part] = [None, None]
    if "requires_safety_checker" in index or "safety_checker" in index:
        index["requires_safety_checker"] = False
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _read_record(store: Store) -> dict[str, Any]:
    if not store.exists(RECORD):
        return {"files": {}}
    record = store.read_json(RECORD)
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise ValueError(f"{store.uri}/{RECORD} is not of this command: choose an empty folder")
    return {"files": record["files"]}
