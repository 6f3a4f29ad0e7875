"""Train the tiny text-to-image model: text encoder and denoiser together, on VAE latents."""

# B batch, L caption tokens, T text width

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.tiny.renders import NONE, Renders
from tools.tiny.schedule import StepLog, WeightAverage, batches, scheduled
from tools.tiny.words import CONTEXT_LENGTH, caption, spoken
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.models.conditioning import encode_prompts, tokenize
from uniemo_ray.store.atomic import write_atomically

logger = logging.getLogger(__name__)
TEXT_WIDTH = 128
EMPTY_SHARE = 0.1
"""Share of captions replaced by the empty one, for classifier-free guidance."""
BLEND_SHARE = 0.25
"""Share of captions that are one word whose embedding is the sum of the scene's and the object's."""


def make_text_encoder(vocabulary: int) -> CLIPTextModel:
    """An untrained tiny CLIP text transformer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def make_denoiser(latent_channels: int = 8) -> UNet2DConditionModel:
    """An untrained tiny UNet: 16 x 16 latents, cross attention at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_noise_schedule() -> DDPMScheduler:
    """Stable Diffusion's schedule with velocity targets."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


class TextToImage(NamedTuple):
    """The trained parts."""

    text_encoder: CLIPTextModel
    denoiser: UNet2DConditionModel


def object_weights(boxes: np.ndarray, *, side: int, extra: float) -> Tensor:
    """Loss weights (B, 1, side, side) with mean 1: `1 + extra` inside the object's box.

    Objects cover a fifth of a picture and would be learned last.
    """
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y, half = boxes[:, 0, None], boxes[:, 1, None], boxes[:, 2, None] / 2
    in_x, in_y = np.abs(centres - x) < half, np.abs(centres - y) < half
    weight = 1 + extra * (in_y[:, :, None] & in_x[:, None, :]).astype(np.float32)
    weight /= weight.mean(axis=(1, 2), keepdims=True)
    return torch.from_numpy(weight)[:, None]


class CaptionEncoder:
    """Captions of renders to text states, with empty and blended captions mixed in."""

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, *, seed: int) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        self.rng = np.random.default_rng(seed)
        rule = load_rule()
        self.scenes, self.objects = rule.scenes, rule.objects
        self.scene_ids = [self._ids(spoken(n)) for n in rule.scenes]
        self.object_ids = [self._ids(spoken(n)) for n in rule.objects]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def __call__(self, scenes: np.ndarray, objects: np.ndarray) -> Tensor:
        """Text states (B, L, T) of freshly drawn captions."""
        kinds = self.rng.random(len(scenes))
        texts = [self._text(k, s, o) for k, s, o in zip(kinds, scenes, objects, strict=True)]
        blends = torch.stack([self._blend(s, o) for s, o in zip(scenes, objects, strict=True)])
        states: Tensor = encode_prompts(
            self.encoder, tokenize(self.tokenizer, texts), blends
        ).last_hidden_state
        return states

    def _text(self, kind: float, scene: int, object_: int) -> str:
        if kind < EMPTY_SHARE:
            return ""
        if kind < EMPTY_SHARE + BLEND_SHARE:
            return PLACEHOLDER
        return caption(
            self.rng,
            scene=None if scene == NONE else self.scenes[scene],
            object_=None if object_ == NONE else self.objects[object_],
        )

    def _blend(self, scene: int, object_: int) -> Tensor:
        table: Tensor = self.encoder.get_parameter("embeddings.token_embedding.weight")
        parts = [self.scene_ids[scene]] if scene != NONE else []
        parts += [self.object_ids[object_]] if object_ != NONE else []
        return torch.stack([table[ids].mean(dim=0) for ids in parts]).sum(dim=0)


def train_diffusion(
    renders: Renders,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    checkpoint: Path | None = None,
    save_every: int = 500,
) -> TextToImage:
    """Fit velocity with min-SNR weights on scaled latents (M, 8, 16, 16).

    With `checkpoint`, state is saved there every `save_every` steps and training resumes from it.
    """
    torch.manual_seed(seed)
    encoder, denoiser = make_text_encoder(len(tokenizer)), make_denoiser(latents.shape[1])
    denoiser.to(memory_format=torch.channels_last)
    both = nn.ModuleList([encoder, denoiser]).train()
    optimizer = torch.optim.AdamW(both.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average = WeightAverage(both)
    start = _resume(checkpoint, both, optimizer, average)
    captions = CaptionEncoder(tokenizer, encoder, seed=seed + start)
    noise_schedule = make_noise_schedule()
    progress = StepLog("diffusion", steps)
    order = batches(len(renders), size=batch_size, seed=seed + start)
    for step, index in scheduled(optimizer, order, steps=steps, lr=lr, start=start):
        clean = latents[torch.from_numpy(index)].to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            text = captions(renders.scenes[index], renders.objects[index])
            error = velocity_error(denoiser, noise_schedule, clean, text)
        weight = object_weights(renders.boxes[index], side=latents.shape[-1], extra=2.0)
        loss = (error * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        average.update(both, step=step)
        progress.log(step, loss=loss.item())
        if checkpoint and (step + 1) % save_every == 0:
            _save(checkpoint, both, optimizer, average, step + 1)
    average.copy_to(both)
    both.eval()
    return TextToImage(encoder, denoiser)


def velocity_error(
    denoiser: UNet2DConditionModel, schedule: DDPMScheduler, clean: Tensor, text: Tensor
) -> Tensor:
    """Squared velocity error (B, C, h, w), each sample weighted by min(SNR, 5) / (SNR + 1)."""
    t = torch.randint(0, len(schedule.alphas_cumprod), (len(clean),))
    noise = torch.randn_like(clean)
    noisy = schedule.add_noise(clean, noise, t)
    target = schedule.get_velocity(clean, noise, t)
    predicted = denoiser(noisy, t, encoder_hidden_states=text).sample
    kept = schedule.alphas_cumprod[t]
    snr = kept / (1 - kept)
    weight = 2 * snr.clamp(max=5) / (snr + 1)
    error: Tensor = (predicted.float() - target).pow(2) * weight[:, None, None, None]
    return error


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage, step: int
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.shadow,
        "step": step,
    }
    with write_atomically(path) as file:
        torch.save(state, file)


def _resume(
    path: Path | None, module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage
) -> int:
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    average.shadow = state["average"]
    return int(state["step"])
