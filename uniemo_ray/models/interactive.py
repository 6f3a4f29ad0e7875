"""The interactive block: expert queries look back at the patches (eq. 2)."""

# B batch, Q queries, L context tokens, D width, H heads

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

START_STD = 0.02
"""Standard deviation of the weights by `encoder.interactive_start: normal`."""


class CrossAttention(nn.Module):
    """Multi-head attention of queries over a context; q, k, v without bias, output with bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width that splits over {heads} heads, got {width}")
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """(B, Q, D) and (B, L, D) to (B, Q, D)."""
        q, k = self._split(self.q_proj(queries)), self._split(self.k_proj(context))
        mixed = F.scaled_dot_product_attention(q, k, self._split(self.v_proj(context)))  # (B, H, Q, D / H)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def weights(self, queries: Tensor, context: Tensor) -> Tensor:
        """The attention weights behind `forward`: (B, H, Q, L), rows sum to 1."""
        q, k = self._split(self.q_proj(queries)), self._split(self.k_proj(context))
        scores: Tensor = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, L, D / H)


class InteractiveLayer(nn.Module):
    """`q = q + CrossAttn(LN1(q), context)`, then `q = q + FFN(LN2(q))`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """(B, Q, D) and normalised context (B, L, D) to (B, Q, D)."""
        queries = queries + self.cross_attn(self.norm1(queries), context)
        refined: Tensor = queries + self.mlp(self.norm2(queries))
        return refined


class InteractiveBlock(nn.Module):
    """A stack of layers that refines queries by cross attention (eq. 2).

    Parameter names follow the released checkpoint: its `query_decoder` is `layers` here, its `norm3`
    is `norm2`, its `mlp.3` is `mlp.2`.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(InteractiveLayer(width, heads) for _ in range(layers))

    @torch.no_grad()
    def start_normal(self) -> None:
        """Draw the weights of all linear layers from N(0, 0.02) and clear their biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=START_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Refined queries S~ (B, Q, D) from queries (B, Q, D) and context (B, L, D)."""
        context = self.norm(context)
        for layer in self.layers:
            queries = layer(queries, context)
        return queries

    @torch.no_grad()
    def attention(self, queries: Tensor, context: Tensor) -> Tensor:
        """Where the last layer looks: (B, L), mean over heads and queries, sums to 1."""
        context = self.norm(context)
        *earlier, last = (layer for layer in self.layers if isinstance(layer, InteractiveLayer))
        for layer in earlier:
            queries = layer(queries, context)
        return last.cross_attn.weights(last.norm1(queries), context).mean(dim=(1, 2))
