"""The latent diffusion model: a diffusers pipeline folder taken apart, with its training loss."""

# B batch, L prompt tokens, T text width, V words, n texts

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from uniemo_ray.models.conditioning import PLACEHOLDER, encode_prompts, tokenize

TINY_FOLDER = Path(str(files("uniemo_ray"))) / "tiny" / "weights" / "diffusion"
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = ("epsilon", "v_prediction", "sample")


class DiffusionParts:
    """Frozen parts of a text-to-image model. Not a module: what holds it does not train it."""

    def __init__(
        self,
        *,
        vae: AutoencoderKL,
        denoiser: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        schedule: DDPMScheduler,
        folder: Path | None = None,
    ) -> None:
        """Freeze the parts and put them in eval mode.

        Raises:
            ValueError: for a target the loss does not know, or an encoder the denoiser cannot hear.
        """
        if schedule.config["prediction_type"] not in TARGETS:
            raise ValueError(
                f"scheduler predicts {schedule.config['prediction_type']!r}: expected one of {TARGETS}"
            )
        heard, spoken = denoiser.config["cross_attention_dim"], text_encoder.config.hidden_size
        if heard != spoken:
            raise ValueError(f"expected a text encoder of width {heard} for this denoiser, got {spoken}")
        self.vae, self.denoiser, self.text_encoder = vae, denoiser, text_encoder
        self.tokenizer, self.schedule, self.folder = tokenizer, schedule, folder
        for part in (vae, denoiser, text_encoder):
            part.requires_grad_(False).eval()

    def to(self, device: torch.device | str) -> "DiffusionParts":
        """Move all parts, in place."""
        for part in (self.vae, self.denoiser, self.text_encoder):
            nn.Module.to(part, device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        device: torch.device = self.text_encoder.device
        return device

    @property
    def text_width(self) -> int:
        """T."""
        return int(self.text_encoder.config.hidden_size)

    @property
    def word_embeddings(self) -> Tensor:
        """The text encoder's whole word table (V, T)."""
        return cast(Tensor, self.text_encoder.get_input_embeddings().weight)

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Mean word embedding (n, T) of each text, underscores read as spaces.

        For attribute names these are the words where a fused condition should start: unlike the
        whole table, they hold no token that was never trained.

        Raises:
            ValueError: for a text without any token.
        """
        rows = []
        for text in texts:
            ids = self.tokenizer(text.replace("_", " "), add_special_tokens=False).input_ids
            if not ids:
                raise ValueError(f"expected texts of one word or more, got {text!r}")
            rows.append(self.word_embeddings[ids].mean(dim=0))
        return torch.stack(rows)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents (B, c, h, w) of pixels (B, 3, H, W) in [-1, 1].

        The posterior's mean, or with a generator a sample of it.
        """
        posterior = self.vae.encode(pixels).latent_dist
        latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
        scaling = float(self.vae.config["scaling_factor"])
        return (latents - self._latent_shift) * scaling

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), about [-1, 1], of scaled latents (B, c, h, w)."""
        pixels: Tensor = self.vae.decode(
            latents / float(self.vae.config["scaling_factor"]) + self._latent_shift
        ).sample
        return pixels

    @property
    def _latent_shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0)

    def text_states(self, prompts: Sequence[str], condition: Tensor | None = None) -> Tensor:
        """Text states (B, L, T) that condition the denoiser.

        Args:
            prompts: B texts; `<emotion>` may stand anywhere.
            condition: (B, T) what `<emotion>` means, per prompt; gradients flow into it.

        Raises:
            ValueError: when counts differ, or `<emotion>` occurs and there is no condition.
        """
        tokens = tokenize(self.tokenizer, list(prompts))
        tokens = tokens._replace(
            ids=tokens.ids.to(self.device), is_placeholder=tokens.is_placeholder.to(self.device)
        )
        if condition is None:
            if bool(tokens.is_placeholder.any()):
                raise ValueError(f"a prompt holds {PLACEHOLDER}, but there is no condition for it")
            condition = torch.zeros(len(prompts), self.text_width, device=self.device)
        if len(condition) != len(prompts):
            raise ValueError(
                f"expected one condition per prompt, got {len(condition)} for {len(prompts)} prompts"
            )
        states: Tensor = encode_prompts(self.text_encoder, tokens, condition).last_hidden_state
        return states

    def denoise_loss(
        self, latents: Tensor, text_states: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Diffusion loss (eq. 8), per sample (B,): MSE of predicted and true target.

        Args:
            latents: (B, c, h, w) scaled, clean.
            text_states: (B, L, T).
            generator: draws time steps and noise, on its own device; without, torch's global one.
        """
        source = latents.device if generator is None else generator.device
        steps = int(self.schedule.config["num_train_timesteps"])
        drawn = torch.randint(steps, (len(latents),), generator=generator, device=source)
        t = cast(torch.IntTensor, drawn.to(latents.device))  # as diffusers declares it
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
        noisy = self.schedule.add_noise(latents, noise, t)
        predicted = self.denoiser(noisy, t, encoder_hidden_states=text_states).sample
        error: Tensor = predicted.float() - self._target(latents, noise, t).float()
        return error.pow(2).mean(dim=(1, 2, 3))

    def _target(self, latents: Tensor, noise: Tensor, t: torch.IntTensor) -> Tensor:
        kind = self.schedule.config["prediction_type"]
        if kind == "v_prediction":
            return self.schedule.get_velocity(latents, noise, t)
        return noise if kind == "epsilon" else latents


def load_diffusion(name: str) -> DiffusionParts:
    """Load a Stable Diffusion pipeline folder, in fp32.

    Args:
        name: `tiny` (shipped) or a folder with model_index.json.

    Raises:
        ValueError: when the folder is missing, is no pipeline, or has another layout.
    """
    folder = TINY_FOLDER if name == "tiny" else Path(name)
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(
            f"diffusion.model {name!r}: {folder} has no model_index.json, expected a diffusers folder"
        )
    parts = json.loads(index.read_text())
    needed = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    missing = [part for part in needed if part not in parts]
    if missing or "text_encoder_2" in parts:
        found = ", ".join(sorted(key for key in parts if not key.startswith("_")))
        raise ValueError(
            f"diffusion.model {folder} holds {found}: expected exactly one text encoder and {needed}"
        )
    disable_progress_bar()  # type: ignore[no-untyped-call]  # it would fill the log of every actor
    return DiffusionParts(
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32),
        denoiser=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        schedule=_training_schedule(folder),
        folder=folder,
    )


def unfreeze_denoiser(
    parts: DiffusionParts, *, mode: Literal["frozen", "lora", "full"], lora_rank: int = 8
) -> list[nn.Parameter]:
    """Choose what trains of the denoiser and return it: nothing, adapters on its attention, or all.

    Call it once; to train the result, register `parts.denoiser` in the module that is optimised.
    """
    if mode == "lora":
        from peft import LoraConfig

        adapter = LoraConfig(
            r=lora_rank,
            lora_alpha=lora_rank,
            init_lora_weights="gaussian",
            target_modules=list(ATTENTION_LAYERS),
        )
        parts.denoiser.add_adapter(adapter)
    elif mode == "full":
        parts.denoiser.requires_grad_(True)
    return [parameter for parameter in parts.denoiser.parameters() if parameter.requires_grad]


def _training_schedule(folder: Path) -> DDPMScheduler:
    """The folder's noise schedule in DDPM form, whichever sampler the folder names."""
    config = DDPMScheduler.load_config(folder, subfolder="scheduler")
    schedule: DDPMScheduler = DDPMScheduler.from_config(config)
    return schedule
