"""Give the words that no caption has taught a place of their own: they name nothing in particular.

The tiny diffusion model learns from the names of scenes and objects alone. An emotion's name, or "room",
is a random vector to it, and what it paints of that is no picture. Here these words appear in captions of
pictures drawn without regard to the word, so each comes to say nothing: the model then paints some picture
of its world. Only their own embeddings move; what was learned before stays bit for bit as it is.
"""

# B batch, W vague words, T text width

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.tiny.diffusion import TextToImage, make_noise_schedule, velocity_error
from tools.tiny.renders import NONE, Renders
from tools.tiny.schedule import StepLog, batches, scheduled
from tools.tiny.words import TAUGHT_GLUE, spoken, vocabulary_words
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.models.conditioning import encode_prompts, tokenize


def vague_words() -> list[str]:
    """Words of the vocabulary that no caption holds, the emotions' names among them."""
    rule = load_rule()
    taught = {word for name in (*rule.scenes, *rule.objects) for word in spoken(name).split()}
    return [word for word in vocabulary_words() if word not in taught | set(TAUGHT_GLUE.split())]


def vague_caption(rng: np.random.Generator, *, word: str, scene: str | None, object_: str | None) -> str:
    """A caption in which `word` adds nothing to the names beside it, if there are any."""
    names = [spoken(name) for name in (scene, object_) if name]
    alone = [word, f"a {word}", f"an image of {word}", f"an image of a {word}"]
    beside = [f"{word} {name}" for name in names] + [f"{name} {word}" for name in names]
    forms = alone if rng.random() < 0.6 else beside
    return str(forms[int(rng.integers(len(forms)))])


class VagueCaptions:
    """Captions of renders that hold one vague word each, whose embeddings are being learned."""

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, *, seed: int) -> None:
        """Start every word at the mean scene plus the mean object, as blended captions say both.

        Raises:
            ValueError: when a vague word is more than one token.
        """
        self.tokenizer, self.encoder = tokenizer, encoder
        self.rng = np.random.default_rng(seed)
        self.words, self.rule = vague_words(), load_rule()
        self.ids = torch.tensor([_single_token(tokenizer, word) for word in self.words])
        start = self._mean_name(self.rule.scenes) + self._mean_name(self.rule.objects)
        self.embeddings = start.repeat(len(self.words), 1).requires_grad_()
        """(W, T)"""

    @torch.no_grad()
    def _mean_name(self, names: Sequence[str]) -> Tensor:
        ids = [self.tokenizer(spoken(name), add_special_tokens=False).input_ids for name in names]
        return torch.stack([self._table[one].mean(dim=0) for one in ids]).mean(dim=0)

    @property
    def _table(self) -> Tensor:
        table: Tensor = self.encoder.get_parameter("embeddings.token_embedding.weight")
        return table

    def __call__(self, scenes: np.ndarray, objects: np.ndarray) -> Tensor:
        """Text states (B, L, T) of freshly drawn captions."""
        chosen = self.rng.integers(len(self.words), size=len(scenes))
        texts = [self._caption(w, s, o) for w, s, o in zip(chosen, scenes, objects, strict=True)]
        prompts = tokenize(self.tokenizer, texts)
        prompts = prompts._replace(is_placeholder=prompts.ids == self.ids[chosen][:, None])
        states: Tensor = encode_prompts(self.encoder, prompts, self.embeddings[chosen]).last_hidden_state
        return states

    def _caption(self, word: int, scene: int, object_: int) -> str:
        return vague_caption(
            self.rng,
            word=self.words[word],
            scene=None if scene == NONE else self.rule.scenes[scene],
            object_=None if object_ == NONE else self.rule.objects[object_],
        )

    @torch.no_grad()
    def write(self) -> None:
        """Put what was learned into the encoder."""
        self._table[self.ids] = self.embeddings


def train_vague_words(
    parts: TextToImage,
    renders: Renders,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 5e-3,
    seed: int = 0,
) -> None:
    """Fit the vague words' embeddings in place, on scaled latents (M, C, h, w)."""
    torch.manual_seed(seed)
    for part in parts:
        part.eval().requires_grad_(requires_grad=False)
    captions = VagueCaptions(tokenizer, parts.text_encoder, seed=seed)
    optimizer = torch.optim.Adam([captions.embeddings], lr=lr)
    noise_schedule, progress = make_noise_schedule(), StepLog("vague words", steps)
    order = batches(len(renders), size=batch_size, seed=seed)
    for step, index in scheduled(optimizer, order, steps=steps, lr=lr):
        clean = latents[torch.from_numpy(index)].to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            text = captions(renders.scenes[index], renders.objects[index])
            loss = velocity_error(parts.denoiser, noise_schedule, clean, text).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.log(step, loss=loss.item())
    captions.write()


def _single_token(tokenizer: CLIPTokenizer, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise ValueError(f"expected {word!r} to be one token of the vocabulary, got {ids}")
    return int(ids[0])
