"""CLIP's text tower and learned prompts from their published definitions, one prompt at a time."""

import torch

from uniemo_ray.models.clip import ClipParts


def encode_one(clip: ClipParts, embedded: torch.Tensor, end: int) -> torch.Tensor:
    """Text feature (E,) of embedded tokens (L, W): positions, causal blocks, norm, projection at the end."""
    model = clip.model
    x = embedded + model.positional_embedding
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
    for block in model.transformer.resblocks:
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    return model.ln_final(x)[end] @ model.text_projection


def text_feature(clip: ClipParts, text: str) -> torch.Tensor:
    """Of plain words."""
    (ids,) = clip.tokenizer([text])
    return encode_one(clip, clip.model.token_embedding.weight[ids], int(ids.argmax()))


def prompt_feature(clip: ClipParts, name: str, context: torch.Tensor, position: str) -> torch.Tensor:
    """Text feature of start, context (n, W) and name in an order, full stop, end and padding."""
    table, words = clip.model.token_embedding.weight, clip.tokenizer.encode(name)
    (ids,) = clip.tokenizer([f"{name}."])
    start, stop, end = ids[0], ids[1 + len(words)], ids[2 + len(words)]
    assert int(end) == int(ids.max())
    half = len(context) // 2
    middle = {
        "end": [context, table[words]],
        "front": [table[words], context],
        "middle": [context[:half], table[words], context[half:]],
    }[position]
    used = torch.cat([table[start][None], *middle, table[stop][None], table[end][None]])
    padding = table[torch.zeros(len(ids) - len(used), dtype=torch.long)]
    return encode_one(clip, torch.cat([used, padding]), len(used) - 1)


def cosine_logits(clip: ClipParts, image: torch.Tensor, texts: list[torch.Tensor]) -> torch.Tensor:
    """Logits (C,) of one image feature (E,): cosine similarities over the temperature."""
    cosines = [image @ text / image.norm() / text.norm() for text in texts]
    return torch.exp(clip.model.logit_scale) * torch.stack(cosines)


def mean_cross_entropy(logits: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """Mean over images of the negative log-probability of the label."""
    odds = torch.exp(logits - logits.max())
    return -torch.stack([torch.log(row[k] / row.sum()) for row, k in zip(odds, labels, strict=True)]).mean()
