"""Vision-language models of transformers as judges: the class whose name is likeliest behind a question."""

# B images, C classes, T tokens of a name, V vocabulary of the language model

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from uniemo_ray.baselines.understanding.prompts import spoken
from uniemo_ray.data.images import RGB
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.text import one_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError)


class NameLikelihood:
    """Log-likelihood of every class's name behind a prompt about an image.

    Args:
        model: for images and text to text, decoder-only (OPT, Vicuna) or encoder-decoder (T5).
        processor: its own.
        prompt: stands before the name; where the model wants it, with the image's place.
        labels: names of the C classes.
        score: sum of the log-probabilities of a name's tokens, or their mean.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        prompt: str,
        labels: Sequence[str],
        score: Literal["sum", "mean"] = "sum",
    ) -> None:
        self.model, self.processor, self.prompt, self.score = model.eval(), processor, prompt, score
        text_config = model.config.get_text_config()
        self.has_encoder = bool(getattr(text_config, "is_encoder_decoder", False))
        self.names = [torch.tensor(self._tokens(spoken(label)), device=model.device) for label in labels]

    def _tokens(self, name: str) -> list[int]:
        """What follows the prompt: a decoder's whole target with its end, or the tokens behind the prompt."""
        tokenizer = self.processor.tokenizer
        if self.has_encoder:
            return list(tokenizer(text_target=name).input_ids)
        before: list[int] = tokenizer(self.prompt, add_special_tokens=False).input_ids
        whole: list[int] = tokenizer(f"{self.prompt} {name}", add_special_tokens=False).input_ids
        if whole[: len(before)] != before or len(whole) == len(before):
            raise ValueError(
                f"the tokenizer joins the prompt {self.prompt!r} with the name {name!r} that follows: end "
                f"the prompt with a colon or another sign"
            )
        return whole[len(before) :]

    @torch.no_grad()
    def __call__(self, images: Sequence[RGB]) -> Tensor:
        """Log-likelihoods (B, C), fp32 on the CPU, of pictures (H, W, 3)."""
        inputs = self.processor(
            images=list(images), text=[self.prompt] * len(images), return_tensors="pt"
        ).to(self.model.device, self.model.dtype)
        columns = [self._score(inputs, name) for name in self.names]
        return torch.stack(columns, dim=1).cpu()

    def _score(self, inputs: Any, name: Tensor) -> Tensor:
        """Of one name (T,), for each image (B,)."""
        tokens = name.repeat(len(inputs["input_ids"]), 1)  # (B, T)
        if self.has_encoder:
            logits = self.model(**inputs, labels=tokens).logits  # (B, T, V)
        else:
            more = {
                "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1),
                "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], dim=1),
            }
            whole = self.model(**{**inputs, **more}).logits
            logits = whole[:, -len(name) - 1 : -1]  # each predicts the next token
        found: Tensor = logits.float().log_softmax(dim=2).gather(2, tokens[..., None])[..., 0]  # (B, T)
        return found.sum(dim=1) if self.score == "sum" else found.mean(dim=1)


def load_language_model(
    name: str, *, dtype: Literal["fp32", "bf16", "fp16"] = "fp32", device: str = "cpu"
) -> tuple[Any, Any]:
    """A model for images and text to text, and its processor.

    Args:
        name: a folder in transformers' layout (local or `s3://`), or a hub id.
        dtype: of its weights.
        device: torch device.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    from transformers import AutoModelForImageTextToText

    place, processor = _place(name), load_processor(name)
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            place, dtype=DTYPES[dtype], use_safetensors=True
        )
    except _LOADING_ERRORS as error:
        raise _unusable(name, error) from None
    return model.requires_grad_(False).to(device), processor


def load_processor(name: str) -> Any:
    """The processor alone, after a look at the model's config.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    place = _place(name)
    try:
        config = AutoConfig.from_pretrained(place)
        processor = AutoProcessor.from_pretrained(place)  # type: ignore[no-untyped-call]
    except _LOADING_ERRORS as error:
        raise _unusable(name, error) from None
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ValueError(
            f"model {name!r} is of type {config.model_type!r}, which takes no image and text to text: "
            f"expected one such as blip-2, instructblip or llava"
        )
    return processor


def _place(name: str) -> str:
    folder = local_folder(name)
    return str(folder) if folder.is_dir() else name


def _unusable(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"model {name!r} cannot be loaded ({one_line(error)[:300]}): expected a folder in transformers' "
        f"layout with safetensors, or a hub id that this machine can reach"
    )
