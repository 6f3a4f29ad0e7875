"""How much of a disk the generations of each owner take."""

import os
from collections import Counter
from pathlib import Path

from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError

UNKNOWN = ""
"""Owner of what is no generation, or no longer one."""


class KeptBytes:
    """Measures the store of generations. An owner never changes, so each request is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._owners: dict[str, str] = {}

    def by_owner(self) -> Counter[str]:
        """Bytes of all files on a disk by owner; nothing on S3, which has quotas of its own."""
        root = self.store.local_path_or_none()
        ids = os.listdir(root) if root is not None and root.is_dir() else []
        self._owners = {name: owner for name in ids if (owner := self._owner(name)) != UNKNOWN}
        sizes: Counter[str] = Counter()
        for name in ids:
            assert root is not None
            sizes[self._owners.get(name, UNKNOWN)] += _bytes_below(root / name)
        return sizes

    def _owner(self, generation_id: str) -> str:
        if generation_id in self._owners:
            return self._owners[generation_id]
        try:
            return str(self.store.read_json(f"{generation_id}/request.json")["owner"])
        except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError):
            return UNKNOWN


def _bytes_below(path: Path) -> int:
    """Size of a file, or of a folder with all that is in it; what is deleted meanwhile counts nothing."""
    below = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(_size(each) for each in (path, *below))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
