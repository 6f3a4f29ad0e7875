"""The CLIP image tower with expert queries: the understanding chain (section 1, eq. 1 to 3)."""

# B batch, P patches, Q queries per set, D width, N layers

from typing import NamedTuple

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uniemo_ray.config import EncoderConfig
from uniemo_ray.models.interactive import InteractiveBlock
from uniemo_ray.models.random_start import given_or_drawn, own_stream

BETA_START = 1e-4


class Features(NamedTuple):
    """What the encoder says about a batch of pictures."""

    cls: Tensor
    """(B, D) class token after ln_post."""
    patches: Tensor
    """(B, P, D) patches after ln_post; only their mean is used, so a mean alone may stand as (B, 1, D)."""
    scene: Tensor | None
    """(B, D) mean of the refined scene queries S^; None without queries."""
    object: Tensor | None
    """(B, D) mean of the refined object queries O^; None without queries."""


class AttentionMaps(NamedTuple):
    """Where the expert queries look, over the patch grid (gh, gw); each map sums to 1."""

    scene: Tensor
    """(B, gh, gw)."""
    object: Tensor
    """(B, gh, gw)."""


class Interaction(NamedTuple):
    """Inputs of one interactive block."""

    queries: Tensor
    """(B, Q, D)."""
    context: Tensor
    """(B, P, D), or (B, 1 + P, D) with the class token."""


class Chain(NamedTuple):
    """One pass through the tower: its features and what its two interactive blocks saw."""

    features: Features
    scene: Interaction
    object: Interaction


class ExpertQueryEncoder(nn.Module):
    """open_clip's own image tower, cut into three stages, with scene and object queries.

    Without queries it equals the tower bit for bit.
    """

    def __init__(self, visual: VisionTransformer, config: EncoderConfig, *, seed: int | None = None) -> None:
        """Take over `visual` (not copied) and add queries as `config` says.

        Args:
            visual: CLIP's image tower.
            config: of the queries and their blocks.
            seed: of their fresh weights; None draws one from torch's own stream.

        Raises:
            ValueError: for a tower that is no plain CLIP ViT, or layers that cannot be split.
        """
        super().__init__()
        _check_tower(visual)
        self.visual = visual
        self.config = config
        self.width: int = visual.conv1.out_channels
        # The projection into CLIP's joint space comes after the class feature: it never gets a gradient here.
        visual.proj.requires_grad_(False)
        self.stage_ends = stage_ends(len(visual.transformer.resblocks), config)
        if config.queries != "none":
            self._add_queries(given_or_drawn(seed))

    def _add_queries(self, seed: int) -> None:
        config, width = self.config, self.width
        with own_stream(seed, "scene_queries"):
            self.scene_queries = nn.Parameter(config.query_start * torch.randn(config.query_length, width))
        with own_stream(seed, "object_queries"):
            self.object_queries = nn.Parameter(config.query_start * torch.randn(config.query_length, width))
        self.scene_block = self._make_block(seed, "scene_block")
        self.object_block = self._make_block(seed, "object_block")
        if config.interactive_residual == "beta":
            self.scene_beta = nn.Parameter(torch.full((width,), BETA_START))
            self.object_beta = nn.Parameter(torch.full((width,), BETA_START))

    def _make_block(self, seed: int, name: str) -> InteractiveBlock:
        heads = self.visual.transformer.resblocks[0].attn.num_heads  # D / 64 in every CLIP ViT of the paper
        with own_stream(seed, name):
            block = InteractiveBlock(self.width, self.config.interactive_layers, heads)
            if self.config.interactive_start == "normal":
                block.start_normal()
        return block

    def forward(self, pixels: Tensor, *, is_isolated: bool = False) -> Features:
        """Features of normalised pixels (B, 3, H, W).

        Args:
            pixels: at the tower's own resolution.
            is_isolated: hide the queries from class token and patches, which then are the plain tower's.

        Raises:
            ValueError: for pixels of another size.
        """
        if self.config.queries == "none":
            return self._plain(pixels)
        return self.chain(pixels, is_isolated=is_isolated).features

    @torch.no_grad()
    def attention(self, pixels: Tensor) -> AttentionMaps:
        """Attention of both query sets over the patches, in the last layer of their interactive blocks.

        Raises:
            ValueError: without queries, or for pixels of another size.
        """
        if self.config.queries == "none":
            raise ValueError("attention maps need expert queries, but encoder.queries is 'none'")
        chain = self.chain(pixels)
        scene = self.scene_block.attention(*chain.scene)
        object_ = self.object_block.attention(*chain.object)
        return AttentionMaps(self._to_grid(scene), self._to_grid(object_))

    def chain(self, pixels: Tensor, *, is_isolated: bool = False) -> Chain:
        """The three stages with both query sets (eq. 1 to 3); arguments as for `forward`."""
        x = self._embed(pixels)
        scene = self.scene_queries.expand(len(x), -1, -1)
        fresh = self.object_queries.expand(len(x), -1, -1)
        # Figure 6: single-step queries of both sets enter before the first layer.
        early = (fresh,) if self.config.queries == "single_step" else ()
        x, scene, *late = self._stage(0, x, scene, *early, is_isolated=is_isolated)
        scene_saw = Interaction(scene, self._context(x))
        scene = refined_scene = self._refine_scene(scene_saw)
        x, scene, object_ = self._stage(1, x, scene, *(late or [fresh]), is_isolated=is_isolated)
        object_saw = Interaction(object_, self._context(x))
        object_ = refined_object = self._refine_object(object_saw)
        x, *_ = self._stage(2, x, scene, object_, is_isolated=is_isolated)
        features = self._features(x, scene=refined_scene.mean(dim=1), object_=refined_object.mean(dim=1))
        return Chain(features, scene_saw, object_saw)

    def _plain(self, pixels: Tensor) -> Features:
        x = self._embed(pixels)
        for i in range(3):
            (x,) = self._stage(i, x, is_isolated=False)
        return self._features(x, scene=None, object_=None)

    def _embed(self, pixels: Tensor) -> Tensor:
        visual = self.visual
        if pixels.shape[-2:] != tuple(visual.image_size):
            raise ValueError(
                f"expected pixels of size {tuple(visual.image_size)}, got {tuple(pixels.shape)}: resize"
            )
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, P, D)
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype)
        embedded: Tensor = visual.ln_pre(visual.patch_dropout(x))
        return embedded

    def _stage(self, index: int, *parts: Tensor, is_isolated: bool) -> tuple[Tensor, ...]:
        """Run one stage's layers over concatenated parts; the first part is class token and patches."""
        transformer = self.visual.transformer
        lengths = [part.shape[1] for part in parts]
        x = torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)
        mask = _hiding_mask(x, seen=lengths[0]) if is_isolated else None
        for block in transformer.resblocks[self.stage_ends[index] : self.stage_ends[index + 1]]:
            if transformer.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, None, None, mask, use_reentrant=False)
            else:
                x = block(x, attn_mask=mask)
        return torch.split(x, lengths, dim=1)

    def _context(self, x: Tensor) -> Tensor:
        return x[:, 1:] if self.config.interactive_context == "patches" else x

    def _refine_scene(self, saw: Interaction) -> Tensor:
        refined: Tensor = self.scene_block(saw.queries, saw.context)
        return saw.queries + self.scene_beta * refined if self._is_residual else refined  # eq. 3

    def _refine_object(self, saw: Interaction) -> Tensor:
        refined: Tensor = self.object_block(saw.queries, saw.context)
        return saw.queries + self.object_beta * refined if self._is_residual else refined

    @property
    def _is_residual(self) -> bool:
        return self.config.interactive_residual == "beta"

    def _features(self, x: Tensor, *, scene: Tensor | None, object_: Tensor | None) -> Features:
        x = self.visual.ln_post(x)
        return Features(cls=x[:, 0], patches=x[:, 1:], scene=scene, object=object_)

    def _to_grid(self, weights: Tensor) -> Tensor:
        rows, columns = self.visual.grid_size
        patches = weights[:, -rows * columns :]
        return (patches / patches.sum(dim=1, keepdim=True)).reshape(-1, rows, columns)


def _check_tower(visual: nn.Module) -> None:
    is_clip_vit = (
        isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok"
    )
    if not is_clip_vit:
        raise ValueError(
            f"expected a CLIP ViT whose class token is the image feature, got {type(visual).__name__}: "
            "choose another encoder.clip"
        )


def stage_ends(layers: int, config: EncoderConfig) -> tuple[int, int, int, int]:
    """(0, L1, L2, N): where the three stages begin and end.

    Raises:
        ValueError: for `stage_layers` that do not cut N layers into three stages.
    """
    if config.stage_layers is None and config.queries == "none":
        return 0, 0, 0, layers
    first, second = config.stage_layers or (layers // 3, 2 * layers // 3)
    if not 1 <= first < second < layers:
        raise ValueError(
            f"encoder.stage_layers ({first}, {second}) does not cut {layers} layers into three stages: "
            f"expected 1 <= L1 < L2 < {layers}"
        )
    return 0, first, second, layers


def _hiding_mask(x: Tensor, *, seen: int) -> Tensor:
    """Additive mask (T, T) by which the first `seen` tokens see only each other."""
    mask = x.new_zeros(x.shape[1], x.shape[1])
    mask[:seen, seen:] = -torch.inf
    return mask
