"""Prompts with a placeholder word whose embedding differs per sample (section 3 of the paper).

The released code writes the fused condition into the embedding table in place, which limits it to
batch size 1. Here the table stays as it is: the word embeddings of a batch are replaced on their way
into the frozen text transformer, so plain autograd reaches the condition at any batch size.
"""

# B batch, L prompt tokens, T text width, P width of SDXL's pooled output

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedModel

from uniemo_ray.config import PLACEHOLDER

_QUOTED_CHARACTERS = 60


class Prompts(NamedTuple):
    """Tokenised prompts."""

    ids: Tensor
    """(B, L) token ids; placeholder positions hold an ordinary id that is never looked at."""
    is_placeholder: Tensor
    """(B, L) bool."""


class TextStates(NamedTuple):
    """What prompts say to the denoiser."""

    hidden: Tensor
    """(B, L, T), for cross attention."""
    pooled: Tensor | None = None
    """(B, P), SDXL only: beside the time step."""


def denoiser_inputs(text: TextStates, *, height: int, width: int) -> dict[str, Any]:
    """Keyword arguments by which a denoiser hears texts (B, ...).

    SDXL is also told the picture's size in pixels, three times over: original size, crop corner, target
    size. Here pictures are resized whole, so original and target are the same and the corner is (0, 0).
    """
    if text.pooled is None:
        return {"encoder_hidden_states": text.hidden}
    sizes = text.pooled.new_tensor([[height, width, 0, 0, height, width]])
    added = {"text_embeds": text.pooled, "time_ids": sizes.repeat(len(text.pooled), 1)}
    return {"encoder_hidden_states": text.hidden, "added_cond_kwargs": added}


class PromptCache:
    """Tokenised prompts on a device, of the last few batches: training repeats one batch of prompts.

    Args:
        size: Batches of prompts that are kept.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._kept: dict[tuple[object, ...], Prompts] = {}

    def tokens(self, tokenizer: CLIPTokenizer, texts: Sequence[str], device: torch.device) -> Prompts:
        """What `tokenize` makes of the texts; not to be changed in place."""
        key = (id(tokenizer), device, tuple(texts))
        found = self._kept.pop(key, None)
        if found is None:
            ids, is_placeholder = tokenize(tokenizer, list(texts))
            found = Prompts(ids.to(device), is_placeholder.to(device))
        self._kept[key] = found  # the last one used is the last to go
        while len(self._kept) > self._size:
            del self._kept[next(iter(self._kept))]
        return found


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Prompts:
    """Tokenise prompts in which `<emotion>` may stand anywhere, padded to the tokenizer's length.

    Raises:
        ValueError: when a prompt does not fit and its placeholder would be cut off.
    """
    length = int(tokenizer.model_max_length)
    rows = [_tokenize_one(tokenizer, text, length) for text in texts]
    ids, masks = zip(*rows, strict=True)
    return Prompts(torch.tensor(ids), torch.tensor(masks))


def fits(tokenizer: CLIPTokenizer, text: str) -> bool:
    """Whether a prompt without placeholder is read to its end."""
    words = tokenizer(text, add_special_tokens=False).input_ids
    return len(words) + 2 <= int(tokenizer.model_max_length)


def _tokenize_one(tokenizer: CLIPTokenizer, text: str, length: int) -> tuple[list[int], list[bool]]:
    ids, mask = [tokenizer.bos_token_id], [False]
    for i, part in enumerate(text.split(PLACEHOLDER)):
        if i:
            ids.append(0)
            mask.append(True)
        words = tokenizer(part, add_special_tokens=False).input_ids
        ids += words
        mask += [False] * len(words)
    if any(mask[length - 1 :]):
        raise ValueError(
            f"prompt {_start_of(text)!r} is too long: {PLACEHOLDER} lies beyond {length} tokens, shorten it"
        )
    ids, mask = [*ids[: length - 1], tokenizer.eos_token_id], [*mask[: length - 1], False]
    padding = length - len(ids)
    return ids + [tokenizer.pad_token_id] * padding, mask + [False] * padding


def _start_of(text: str) -> str:
    """Enough of a prompt to recognise it."""
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}..."


@contextmanager
def replaced_words(encoder: PreTrainedModel, is_placeholder: Tensor, condition: Tensor) -> Iterator[None]:
    """While active, `encoder` sees `condition` (B, T) as the word embedding at placeholder positions."""

    def replace(_module: nn.Module, _inputs: Any, words: Tensor) -> Tensor:
        return torch.where(is_placeholder[..., None], condition[:, None, :].to(words.dtype), words)

    handle = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def encode_prompts(encoder: PreTrainedModel, prompts: Prompts, condition: Tensor, **options: Any) -> Any:
    """The text encoder's own output for prompts whose placeholder means `condition`, per sample.

    Args:
        encoder: `CLIPTextModel` or `CLIPTextModelWithProjection`.
        prompts: (B, L) ids and mask.
        condition: (B, T) fused condition; gradients flow into it.
        options: passed to the encoder, such as `output_hidden_states=True`.

    Raises:
        ValueError: when the width of `condition` is not the encoder's.
    """
    width = encoder.get_input_embeddings().embedding_dim
    if condition.shape[-1] != width:
        raise ValueError(f"expected conditions of width {width}, got {tuple(condition.shape)}")
    with replaced_words(encoder, prompts.is_placeholder, condition):
        return encoder(prompts.ids, **options)
