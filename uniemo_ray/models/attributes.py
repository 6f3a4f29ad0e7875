"""The attribute base: names of scenes or objects, found by CLIP and weighed by emotion (section 2)."""

# B batch, A attributes, C emotions, E joint embedding width, T text-embedding width

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.emotions import EMOTIONS

NO_ATTRIBUTE = -1


class AttributeBase(nn.Module):
    """All names of one kind, with their text embeddings and emotional correlation coefficients."""

    embeddings: Tensor
    """(A, E), L2-normalised."""
    coefficients: Tensor
    """(A, C) alpha of eq. 5; a row of zeros is an attribute that no training image carries."""

    def __init__(self, names: Sequence[str], embeddings: Tensor, classes: int = len(EMOTIONS)) -> None:
        """Start with coefficients of zero; `set_coefficients` fills them after stage 1.

        Raises:
            ValueError: when names and embeddings do not match, or a name occurs twice.
        """
        super().__init__()
        if len(set(names)) != len(names):
            raise ValueError(f"attribute names must be distinct, got {len(names) - len(set(names))} twice")
        if embeddings.ndim != 2 or len(embeddings) != len(names):
            raise ValueError(f"expected {len(names)} attribute embeddings, got {tuple(embeddings.shape)}")
        self.names = tuple(names)
        self.register_buffer("embeddings", F.normalize(embeddings.detach().float(), dim=-1))
        self.register_buffer("coefficients", torch.zeros(len(names), classes))

    @torch.no_grad()
    def set_coefficients(self, rows: Mapping[str, Sequence[float]]) -> None:
        """Take alpha (eq. 5) by name, C values each; a name without a row weighs 0.

        Raises:
            ValueError: for a name outside the base or a row of another length.
        """
        unknown = sorted(rows.keys() - set(self.names))
        if unknown:
            raise ValueError(f"coefficients name {unknown[0]!r}, which is not in the attribute base")
        self.coefficients.zero_()
        for name, row in rows.items():
            if len(row) != self.coefficients.shape[1]:
                raise ValueError(
                    f"expected {self.coefficients.shape[1]} coefficients for {name!r}, got {len(row)}"
                )
            self.coefficients[self.names.index(name)] = torch.tensor(row)

    @torch.no_grad()
    def find(self, query: Tensor) -> Tensor:
        """Index (B,) of the name most similar (cosine) to each query (B, E); -1 in an empty base."""
        return _most_similar(query, self.embeddings)

    @torch.no_grad()
    def weight(self, index: Tensor, emotion: Tensor) -> Tensor:
        """alpha[index, emotion] (B,) for int64 indices (B,); 0 where the index is -1."""
        return _alpha(self.coefficients, index, emotion)


class MappedNames(nn.Module):
    """The names of both bases together, for queries that phi has mapped (`fusion.match: mapped`).

    Objects come first, so that of two equal names the object counts, as in the released code.
    """

    embeddings: Tensor
    """(A, T), L2-normalised, of objects and then scenes; underscores are part of a name."""

    def __init__(self, scenes: AttributeBase, objects: AttributeBase, embeddings: Tensor) -> None:
        """Keep the embeddings; coefficients stay where they are, in the two bases.

        Raises:
            ValueError: when names and embeddings do not match.
        """
        super().__init__()
        self.names = (*objects.names, *scenes.names)
        if embeddings.ndim != 2 or len(embeddings) != len(self.names):
            raise ValueError(f"expected {len(self.names)} name embeddings, got {tuple(embeddings.shape)}")
        self._bases = (objects, scenes)  # a tuple keeps them out of this module's state
        self.register_buffer("embeddings", F.normalize(embeddings.detach().float(), dim=-1))

    @torch.no_grad()
    def find(self, query: Tensor) -> Tensor:
        """Index (B,) of the name most similar (cosine) to each mapped query (B, T); -1 without names."""
        return _most_similar(query, self.embeddings)

    @torch.no_grad()
    def weight(self, index: Tensor, emotion: Tensor) -> Tensor:
        """alpha[index, emotion] (B,) for int64 indices (B,); 0 where the index is -1."""
        return _alpha(torch.cat([base.coefficients for base in self._bases]), index, emotion)


def _most_similar(query: Tensor, embeddings: Tensor) -> Tensor:
    """In fp32 also under autocast, so that training chooses what inference chooses."""
    if not len(embeddings):
        return torch.full((len(query),), NO_ATTRIBUTE, device=query.device)
    # A query's own length changes no arg max.
    with torch.autocast(query.device.type, enabled=False):
        return (query.float() @ embeddings.float().T).argmax(dim=1)


def _alpha(coefficients: Tensor, index: Tensor, emotion: Tensor) -> Tensor:
    if not len(coefficients):
        return torch.zeros(len(index), device=index.device)
    return torch.where(index == NO_ATTRIBUTE, 0.0, coefficients[index.clamp(min=0), emotion])
