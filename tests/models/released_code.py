"""What the released code computes, written from its checkpoint format alone, in plain torch.

Nothing of the package is used here: this is what an imported checkpoint is compared with.
"""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAPPERS = ("mapper", "mapper_scene", "mapper_object")
State = dict[str, Tensor]
Sections = dict[str, State]


class Sizes(NamedTuple):
    """Of a checkpoint; heads are 64 wide in every CLIP."""

    width: int = 128
    layers: int = 6
    patch: int = 8
    image: int = 32
    joint: int = 48
    text_width: int = 64
    text_layers: int = 1
    vocabulary: int = 600
    context: int = 16
    queries: int = 32
    condition: int = 16


class Mapper(nn.Module):
    """What stage 2 has three of; its file holds this module's state."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, condition))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class EmotionHead(nn.Module):
    """The classifier of the class feature; `Emo_classifier` holds its state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc0 = nn.Linear(width, 768)
        self.fc1 = nn.Linear(768, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc1(self.fc0(x).relu())


class Said(NamedTuple):
    """Outputs of the released forward pass."""

    cls: Tensor
    scene: Tensor
    object: Tensor
    scene_embedding: Tensor
    object_embedding: Tensor
    logits: Tensor


def random_checkpoint(sizes: Sizes, *, seed: int = 0, with_mappers: bool = False) -> Sections:
    """Random tensors of moderate size under the released names."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        scale = shape[-1] ** -0.5 if scale is None else scale
        return torch.randn(*shape, generator=source) * scale

    def norm(name: str, width: int) -> State:
        return {
            f"{name}.weight": 1 + draw(width, scale=0.1),
            f"{name}.bias": draw(width, scale=0.1),
        }

    def linear(name: str, rows: int, columns: int) -> State:
        return {f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(rows, scale=0.1)}

    def resblock(name: str, width: int) -> State:
        return {
            f"{name}.attn.in_proj_weight": draw(3 * width, width),
            f"{name}.attn.in_proj_bias": draw(3 * width, scale=0.1),
            **linear(f"{name}.attn.out_proj", width, width),
            **norm(f"{name}.ln_1", width),
            **linear(f"{name}.mlp.c_fc", 4 * width, width),
            **linear(f"{name}.mlp.c_proj", width, 4 * width),
            **norm(f"{name}.ln_2", width),
        }

    def interact(name: str, width: int) -> State:
        layer = f"{name}.query_decoder.0"
        attention = {f"{layer}.cross_attn.{p}_proj.weight": draw(width, width) for p in "qkv"}
        return {
            f"{name}.query_alpha": torch.full((width,), 1e-4),
            **norm(f"{name}.norm", width),
            **norm(f"{layer}.norm1", width),
            **attention,
            **linear(f"{layer}.cross_attn.proj", width, width),
            **norm(f"{layer}.norm3", width),
            **linear(f"{layer}.mlp.0", 4 * width, width),
            **linear(f"{layer}.mlp.3", width, 4 * width),
        }

    d, t = sizes.width, sizes.text_width
    tokens = (sizes.image // sizes.patch) ** 2 + 1
    model: State = {
        "visual.class_embedding": draw(d, scale=0.5),
        "visual.positional_embedding": draw(tokens, d, scale=0.5),
        "visual.proj": draw(d, sizes.joint),
        "visual.conv1.weight": draw(d, 3, sizes.patch, sizes.patch, scale=0.05),
        **norm("visual.ln_pre", d),
        **norm("visual.ln_post", d),
        "visual.visual_query_scene.weight": draw(sizes.queries, d, scale=0.5),
        "visual.visual_query_object.weight": draw(sizes.queries, d, scale=0.5),
        "visual.visual_query_last.weight": draw(sizes.queries, d),
        "visual_query_scene_proj": draw(d, sizes.joint, scale=0.1),
        "visual_query_object_proj": draw(d, sizes.joint, scale=0.1),
        "visual_query_last_proj": draw(d, sizes.joint),
        "logit_scale": torch.tensor(2.6),
        "logit_scale_object": torch.tensor(3.1),
        "token_embedding.weight": draw(sizes.vocabulary, t, scale=0.02),
        "positional_embedding": draw(sizes.context, t, scale=0.01),
        "text_projection": draw(t, sizes.joint),
        **norm("ln_final", t),
    }
    for i in range(sizes.layers):
        model |= resblock(f"visual.transformer.resblocks.{i}", d)
    for i in range(sizes.text_layers):
        model |= resblock(f"transformer.resblocks.{i}", t)
    for i in range(2):
        model |= interact(f"visual.transformer.visual_query_interact.{i}", d)

    def drawn(module: nn.Module) -> State:
        """A module's own names, with values of the same generator."""
        scale = {1: 0.1, 2: None}
        return {
            key: draw(*value.shape, scale=scale[value.ndim]) for key, value in module.state_dict().items()
        }

    sections = {"model": model, "Emo_classifier": drawn(EmotionHead(d))}
    if with_mappers:
        for name in MAPPERS:
            sections[name] = drawn(Mapper(d, sizes.condition))
    return sections


def save_stage_1(sections: Sections, path: Path, *, prefix: str = "") -> None:
    """A file with all that the training of stage 1 saves.

    Args:
        sections: `model` and `Emo_classifier`.
        path: of the file.
        prefix: stands before every name, `module.` on several GPUs.
    """
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    named = {
        name: {f"{prefix}{key}": value for key, value in sections[name].items()}
        for name in ("model", "Emo_classifier")
    }
    rest = {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 32).state_dict(),
        "max_accuracy": np.float64(76.2),
        "epoch": 14,
        "config": Namespace(learning_rate=1e-4, output_dir="runs", data_root=None, seed=520),
    }
    torch.save(named | rest, path)


def released_forward(sections: Sections, pixels: Tensor, *, layers: int) -> Said:
    """The released code's forward pass of normalised pixels (B, 3, H, W)."""
    m = sections["model"]
    patch = m["visual.conv1.weight"].shape[-1]
    x = F.conv2d(pixels, m["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
    first = m["visual.class_embedding"][None, None].repeat(len(x), 1, 1)
    x = torch.cat([first, x], dim=1) + m["visual.positional_embedding"]
    tokens = _norm(m, "visual.ln_pre", x)
    seen = tokens.shape[1]
    scene = m["visual.visual_query_scene.weight"][None].repeat(len(x), 1, 1)
    object_ = m["visual.visual_query_object.weight"][None].repeat(len(x), 1, 1)
    count = scene.shape[1]

    sequence = _resblocks(m, torch.cat([tokens, scene], dim=1), range(layers // 3))
    tokens, scene = sequence[:, :seen], sequence[:, seen:]
    scene = pooled_scene = _interact(m, 0, scene, tokens)
    sequence = torch.cat([tokens, scene, object_], dim=1)
    sequence = _resblocks(m, sequence, range(layers // 3, 2 * layers // 3))
    tokens, scene, object_ = sequence.split([seen, count, count], dim=1)
    object_ = pooled_object = _interact(m, 1, object_, tokens)
    sequence = torch.cat([tokens, scene, object_], dim=1)
    sequence = _resblocks(m, sequence, range(2 * layers // 3, layers))

    cls = _norm(m, "visual.ln_post", sequence[:, 0])
    head = EmotionHead(cls.shape[1])
    head.load_state_dict(sections["Emo_classifier"])
    scene, object_ = pooled_scene.mean(dim=1), pooled_object.mean(dim=1)
    return Said(
        cls=cls,
        scene=scene,
        object=object_,
        scene_embedding=_unit(scene @ m["visual_query_scene_proj"]),
        object_embedding=_unit(object_ @ m["visual_query_object_proj"]),
        logits=head(cls).detach(),
    )


def released_condition(sections: Sections, said: Said, scene_weight: Tensor, object_weight: Tensor) -> Tensor:
    """The fused condition (B, T) from the three mappers."""
    return (
        mapped(sections, "mapper", said.cls)
        + scene_weight[:, None] * mapped(sections, "mapper_scene", said.scene)
        + object_weight[:, None] * mapped(sections, "mapper_object", said.object)
    )


@torch.no_grad()
def mapped(sections: Sections, name: str, x: Tensor) -> Tensor:
    """A feature (B, D) through one mapper: (B, T)."""
    state = sections[name]
    condition, width = state["mlp.2.weight"].shape
    mapper = Mapper(width, condition)
    mapper.load_state_dict(state)
    return mapper(x)


def released_text(sections: Sections, tokens: Tensor, *, layers: int) -> Tensor:
    """Text features (A, E), unnormalised, of token ids (A, L); a text ends at its largest id."""
    m = sections["model"]
    length = tokens.shape[1]
    x = m["token_embedding.weight"][tokens] + m["positional_embedding"][:length]
    later = torch.ones(length, length).triu(1).bool()
    x = _resblocks(m, x, range(layers), tower="transformer", hidden=later)
    last = _norm(m, "ln_final", x)[torch.arange(len(x)), tokens.argmax(dim=1)]
    return last @ m["text_projection"]


def released_weight(total: Tensor, alphas: list[list[float]], query: Tensor, emotion: Tensor) -> Tensor:
    """Weights (B,) of mapped queries (B, T): alpha at the most similar of all names.

    Args:
        total: (A, T) text features of the names.
        alphas: A rows, one weight for each emotion.
        query: mapped.
        emotion: (B,).
    """
    found = [F.cosine_similarity(total, one[None]).argmax() for one in query]
    return torch.tensor([alphas[i][e] for i, e in zip(found, emotion, strict=True)])


def _unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(dim=-1, keepdim=True).sqrt()


def _norm(m: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * m[f"{name}.weight"] + m[f"{name}.bias"]


def _quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def _attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Heads of 64 features, one after the other; where `hidden` nothing is seen."""
    heads = []
    for i in range(0, q.shape[-1], 64):
        scores = q[..., i : i + 64] @ k[..., i : i + 64].transpose(1, 2) / 8
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        heads.append(scores.softmax(dim=-1) @ v[..., i : i + 64])
    return torch.cat(heads, dim=-1)


def _resblocks(
    m: State, x: Tensor, numbers: range, *, tower: str = "visual.transformer", hidden: Tensor | None = None
) -> Tensor:
    for i in numbers:
        name = f"{tower}.resblocks.{i}"
        y = _norm(m, f"{name}.ln_1", x)
        q, k, v = (y @ m[f"{name}.attn.in_proj_weight"].T + m[f"{name}.attn.in_proj_bias"]).chunk(3, dim=-1)
        seen = _attend(q, k, v, hidden)
        x = x + seen @ m[f"{name}.attn.out_proj.weight"].T + m[f"{name}.attn.out_proj.bias"]
        y = _norm(m, f"{name}.ln_2", x)
        y = _quick_gelu(y @ m[f"{name}.mlp.c_fc.weight"].T + m[f"{name}.mlp.c_fc.bias"])
        x = x + y @ m[f"{name}.mlp.c_proj.weight"].T + m[f"{name}.mlp.c_proj.bias"]
    return x


def _interact(m: State, number: int, queries: Tensor, tokens: Tensor) -> Tensor:
    name = f"visual.transformer.visual_query_interact.{number}"
    layer = f"{name}.query_decoder.0"
    context = _norm(m, f"{name}.norm", tokens)
    y = _norm(m, f"{layer}.norm1", queries)
    q = y @ m[f"{layer}.cross_attn.q_proj.weight"].T
    k, v = (context @ m[f"{layer}.cross_attn.{p}_proj.weight"].T for p in "kv")
    out = _attend(q, k, v) @ m[f"{layer}.cross_attn.proj.weight"].T + m[f"{layer}.cross_attn.proj.bias"]
    queries = queries + out
    y = _norm(m, f"{layer}.norm3", queries)
    y = _quick_gelu(y @ m[f"{layer}.mlp.0.weight"].T + m[f"{layer}.mlp.0.bias"])
    return queries + y @ m[f"{layer}.mlp.3.weight"].T + m[f"{layer}.mlp.3.bias"]
