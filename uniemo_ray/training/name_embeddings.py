"""Stored text embeddings of the attribute base: the text tower runs once, not at every start of a worker."""

# n names, E joint embedding width

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from uniemo_ray.models.clip import ClipParts, embed_names
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards

FOLDER = "names"
SCHEMA = pa.schema([("name", pa.string()), ("embedding", pa.list_(pa.float32()))])


class NameEmbeddings:
    """Names to L2-normalised text embeddings, as stored."""

    def __init__(self, table: pa.Table) -> None:
        """Take SCHEMA rows."""
        self._rows = dict(zip(table["name"].to_pylist(), table["embedding"].to_pylist(), strict=True))
        self._width = len(next(iter(self._rows.values()), ()))

    @classmethod
    def load(cls, uri: str) -> "NameEmbeddings":
        """Read the shards below a folder, local or `s3://`."""
        return cls(read_shards(open_store(uri), f"{FOLDER}/"))

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Embeddings (n, E), float32.

        Raises:
            ValueError: naming one that is not stored.
        """
        missing = [name for name in names if name not in self._rows]
        if missing:
            raise ValueError(f"no stored text embedding of {missing[0]!r}: compute the names step anew")
        rows = np.array([self._rows[name] for name in names], dtype=np.float32)
        return torch.from_numpy(rows.reshape(len(names), self._width))


def embed_table(clip: ClipParts, names: Sequence[str]) -> pa.Table:
    """SCHEMA rows of names, from CLIP's text tower."""
    embeddings = embed_names(clip, names).cpu().numpy()
    return pa.table({"name": list(names), "embedding": list(embeddings)}, schema=SCHEMA)
