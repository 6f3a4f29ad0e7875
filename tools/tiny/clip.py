"""Train the tiny CLIP: an open_clip model that matches renders with words."""

# B batch, S scenes, O objects, E joint embedding width

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional as F

from tools.tiny.renders import NONE, Renders
from tools.tiny.schedule import StepLog, WeightAverage, batches, scheduled
from tools.tiny.words import CONTEXT_LENGTH, spoken
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.images import normalise

logger = logging.getLogger(__name__)
TEMPLATES = ("{}", "a {}", "an image of {}", "an image of a {}")


def clip_config(vocabulary: int) -> dict[str, Any]:
    """open_clip's model config: ViT with 6 layers of width 192 on 64 px, patch 8."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 64,
            "layers": 6,
            "width": 192,
            "patch_size": 8,
            "head_width": 64,
            "mlp_ratio": 2.0,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
        "quick_gelu": True,
    }


class NameLogits(NamedTuple):
    """Similarities of pictures to the names of the attribute base."""

    scene: Tensor
    """(B, S)."""
    object: Tensor
    """(B, O)."""


class NameBank:
    """Token ids of all attribute names in one caption template."""

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        rule = load_rule()
        self.scene_count = len(rule.scenes)
        names = [spoken(n) for n in (*rule.scenes, *rule.objects)]
        self.by_template = [tokenizer([t.format(n) for n in names]) for t in TEMPLATES]
        self.pairs = torch.stack(
            [tokenizer([f"a {spoken(o)} in a {spoken(s)}" for o in rule.objects]) for s in rule.scenes]
        )  # (S, O, L)

    def logits(self, model: CLIP, image: Tensor, *, template: int = 0) -> NameLogits:
        """Scaled cosine similarities of normalised image features (B, E) to every name."""
        text = model.encode_text(self.by_template[template], normalize=True)
        table = model.logit_scale.exp() * image @ text.T
        return NameLogits(table[:, : self.scene_count], table[:, self.scene_count :])


def train_clip(
    renders: Renders,
    tokenizer: SimpleTokenizer,
    *,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> CLIP:
    """Contrast pictures with whole captions of the batch and with every scene and object name."""
    torch.manual_seed(seed)
    model = CLIP(**clip_config(tokenizer.vocab_size)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    average, bank = WeightAverage(model), NameBank(tokenizer)
    progress, rng = StepLog("clip", steps), np.random.default_rng(seed)
    order = batches(len(renders), size=batch_size, seed=seed)
    for step, index in scheduled(optimizer, order, steps=steps, lr=lr, warmup=200):
        scenes, objects = torch.from_numpy(renders.scenes[index]), torch.from_numpy(renders.objects[index])
        pixels = normalise(shifted(renders.pixels[index], rng), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(pixels, normalize=True)
            names = bank.logits(model, image, template=int(rng.integers(len(TEMPLATES))))
            captions = _caption_loss(model, bank, image, scenes, objects)
        scene = F.cross_entropy(names.scene.float(), scenes, ignore_index=NONE)
        object_ = F.cross_entropy(names.object.float(), objects, ignore_index=NONE)
        optimizer.zero_grad()
        (scene + object_ + 0.5 * captions).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        average.update(model, step=step)
        progress.log(step, scene=scene.item(), object=object_.item(), captions=captions.item())
    average.copy_to(model)
    return model.eval()


def shifted(pixels: np.ndarray, rng: np.random.Generator, *, most: int = 6) -> np.ndarray:
    """Shift a batch by up to `most` pixels each way, repeating the edge."""
    dx, dy = rng.integers(0, 2 * most + 1, size=2)
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded[:, dy : dy + height, dx : dx + width])


def _caption_loss(model: CLIP, bank: NameBank, image: Tensor, scenes: Tensor, objects: Tensor) -> Tensor:
    """Symmetric InfoNCE over "a {object} in a {scene}"; equal captions are no negatives."""
    full = (scenes != NONE) & (objects != NONE)
    scenes, objects = scenes[full], objects[full]
    text = model.encode_text(bank.pairs[scenes, objects], normalize=True)
    logits = (model.logit_scale.exp() * image[full] @ text.T).float()
    pair = scenes * 1000 + objects
    same = (pair[:, None] == pair[None, :]) & ~torch.eye(len(pair), dtype=torch.bool)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(pair))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class ZeroShot(NamedTuple):
    """Zero-shot accuracy over attribute names."""

    scene: float
    object: float


@torch.no_grad()
def zero_shot_accuracy(model: CLIP, tokenizer: SimpleTokenizer, renders: Renders) -> ZeroShot:
    """Share of renders whose nearest name is the right one, for scenes and for objects."""
    bank = NameBank(tokenizer)
    hits = []
    for i in range(0, len(renders), 256):
        pixels = normalise(renders.pixels[i : i + 256], OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        image = model.encode_image(pixels, normalize=True)
        names = bank.logits(model, image)
        scene = names.scene.argmax(dim=1).numpy() == renders.scenes[i : i + 256]
        object_ = names.object.argmax(dim=1).numpy() == renders.objects[i : i + 256]
        hits.append(np.stack([scene, object_], axis=1))
    mean = np.concatenate(hits).mean(axis=0)
    return ZeroShot(float(mean[0]), float(mean[1]))


def load_tokenizer(folder: Path) -> SimpleTokenizer:
    """open_clip's tokenizer over the tiny merges file."""
    return SimpleTokenizer(bpe_path=str(folder / "merges.txt.gz"), context_length=CONTEXT_LENGTH)
