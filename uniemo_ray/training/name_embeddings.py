"""Stored text embeddings of the attribute base: the text tower runs once, not at every start of a worker."""

# n names, E joint embedding width

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from uniemo_ray.models.clip import ClipParts, embed_names
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards

FOLDER = "names"
SCHEMA = pa.schema(
    [("name", pa.string()), ("embedding", pa.list_(pa.float32())), ("verbatim", pa.list_(pa.float32()))]
)
"""`embedding` is that of the name with spaces in place of its underscores, `verbatim` that of the name as it
is. Every row has both, so that no setting of a stage changes them."""
KINDS = ("scene", "object")
"""Names stored beside those of the data set: they stand for an attribute that an image does not have."""


class NameEmbeddings:
    """Names to L2-normalised text embeddings, as stored."""

    def __init__(self, table: pa.Table) -> None:
        """Take SCHEMA rows."""
        self._rows = _by_name(table, "embedding")
        self._verbatim = _by_name(table, "verbatim")

    @classmethod
    def load(cls, uri: str) -> "NameEmbeddings":
        """Read the shards below a folder, local or `s3://`."""
        return cls(read_shards(open_store(uri), f"{FOLDER}/"))

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Embeddings (n, E), float32.

        Raises:
            ValueError: naming one that is not stored.
        """
        return _rows_of(self._rows, names)

    def verbatim(self, names: Sequence[str]) -> Tensor:
        """Embeddings (n, E), float32, of the names with their underscores.

        Raises:
            ValueError: naming one that is not stored.
        """
        return _rows_of(self._verbatim, names)


def embed_table(clip: ClipParts, names: Sequence[str]) -> pa.Table:
    """SCHEMA rows of names, from CLIP's text tower."""
    embeddings = embed_names(clip, names).cpu().numpy()
    verbatim = embed_names(clip, names, is_verbatim=True).cpu().numpy()
    columns = {"name": list(names), "embedding": list(embeddings), "verbatim": list(verbatim)}
    return pa.table(columns, schema=SCHEMA)


def _by_name(table: pa.Table, column: str) -> dict[str, list[float]]:
    return dict(zip(table["name"].to_pylist(), table[column].to_pylist(), strict=True))


def _rows_of(stored: Mapping[str, list[float]], names: Sequence[str]) -> Tensor:
    missing = [name for name in names if name not in stored]
    if missing:
        raise ValueError(f"no stored text embedding of {missing[0]!r}: compute the names step anew")
    rows = np.array([stored[name] for name in names], dtype=np.float32)
    return torch.from_numpy(rows.reshape(len(names), len(next(iter(stored.values()), ()))))
