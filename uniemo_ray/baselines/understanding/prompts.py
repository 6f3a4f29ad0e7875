"""Prompts as tokens of a CLIP's text tower: what fits into it, and the tower from embedded tokens on."""

# N prompts, L tokens of the text tower, W its width, E joint embedding width

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from uniemo_ray.models.clip import MERGES_FILE, find_clip_config

START_AND_END = 2
"""Tokens that every prompt has besides its words."""


def spoken(label: str) -> str:
    """A class's name as words."""
    return label.replace("_", " ")


class PromptTokens:
    """The vocabulary of a CLIP and the length of its text tower, without its weights."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    @classmethod
    def of_clip(cls, name: str, *, pretrained: str | None) -> "PromptTokens":
        """Those of the CLIP that `load_clip` would load.

        Raises:
            ValueError: there is no such model.
        """
        config, folder = find_clip_config(name, pretrained=pretrained)
        length = int(config["model_cfg"]["text_cfg"].get("context_length", 77))
        merges = folder / MERGES_FILE if folder is not None else None
        own = {"bpe_path": str(merges)} if merges is not None and merges.is_file() else {}
        return cls(SimpleTokenizer(context_length=length, **own), length)

    def count(self, text: str) -> int:
        """Tokens of a text without those of its start and end."""
        return len(self.tokenizer.encode(text))

    def check_prompt(self, text: str, *, setting: str) -> None:
        """Refuse a prompt that the text tower would cut.

        Raises:
            ValueError: it is too long; the setting is named.
        """
        tokens = self.count(text) + START_AND_END
        if tokens > self.length:
            raise ValueError(
                f"{setting}: {text!r} has {tokens} tokens with start and end, but the text tower of "
                f"encoder.clip reads {self.length}: shorten it"
            )

    def check_context(self, context_length: int, labels: Sequence[str], *, setting: str) -> None:
        """Refuse a context that leaves no room for a class's name, the full stop, start and end.

        Raises:
            ValueError: naming the longest class and the largest context that fits.
        """
        longest = max(labels, key=lambda label: self.count(spoken(label)))
        room = self.length - START_AND_END - self.count(f"{spoken(longest)}.")
        if context_length > room:
            raise ValueError(
                f"{setting} is {context_length}, but the text tower of encoder.clip reads {self.length} "
                f"tokens and {longest!r} leaves room for {max(0, room)}: set it to that or less"
            )

    def check_start(self, words: str, context_length: int, *, setting: str) -> None:
        """Refuse words that are not as many tokens as the context.

        Raises:
            ValueError: naming both numbers.
        """
        if (count := self.count(words)) != context_length:
            raise ValueError(
                f"{setting}: {words!r} has {count} tokens, but context_length is {context_length}: make "
                f"them equal"
            )


class EmbeddedTextTower(nn.Module):
    """A CLIP's text tower from its token embeddings on.

    Args:
        clip: pools at the end of the text. Its temperature is left out: DeepSpeed cannot send a parameter
            without dimensions to other workers (0.19.8).
    """

    attn_mask: Tensor

    def __init__(self, clip: open_clip.CLIP) -> None:
        super().__init__()
        self.positional_embedding, self.transformer = clip.positional_embedding, clip.transformer
        self.ln_final, self.text_projection = clip.ln_final, clip.text_projection
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)

    def forward(self, embedded: Tensor, ends: Tensor) -> Tensor:
        """Text features (N, E), not normalised.

        Args:
            embedded: (N, L, W), with the embeddings of start and end.
            ends: (N,) position of each prompt's end.
        """
        x: Tensor = self.transformer(embedded + self.positional_embedding, attn_mask=self.attn_mask)
        x = self.ln_final(x)[torch.arange(len(x), device=x.device), ends]
        is_layer = isinstance(self.text_projection, nn.Linear)
        features: Tensor = self.text_projection(x) if is_layer else x @ self.text_projection
        return features
