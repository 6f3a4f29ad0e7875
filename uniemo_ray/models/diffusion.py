"""The latent diffusion model: Stable Diffusion (XL) taken apart, with its training loss."""

# B batch, L prompt tokens, T text width (the sum over both encoders for SDXL), V words, n texts

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from uniemo_ray.config import PLACEHOLDER, DiffusionConfig
from uniemo_ray.models.conditioning import (
    PromptCache,
    TextStates,
    denoiser_inputs,
    encode_prompts,
    tokenize,
)
from uniemo_ray.models.pipeline_folder import (
    PipelineFolder,
    configured_pipeline,
    find_pipeline,
    load_part,
)
from uniemo_ray.models.vae import decode_latents, encode_images, load_vae

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
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        folder: PipelineFolder | None = None,
    ) -> None:
        """Freeze the parts and put them in eval mode. With a second text encoder it is SDXL.

        Raises:
            ValueError: for a target the loss does not know, or encoders the denoiser cannot hear.
        """
        if schedule.config["prediction_type"] not in TARGETS:
            raise ValueError(
                f"scheduler predicts {schedule.config['prediction_type']!r}: expected one of {TARGETS}"
            )
        self.vae, self.denoiser, self.text_encoder = vae, denoiser, text_encoder
        self.tokenizer, self.schedule, self.folder = tokenizer, schedule, folder
        self.text_encoder_2, self.tokenizer_2 = text_encoder_2, tokenizer_2
        self.is_xl, self._prompts = text_encoder_2 is not None, PromptCache()
        self.is_empty_zero = folder.is_empty_zero if folder else self.is_xl  # as the pipelines default
        heard = denoiser.config["cross_attention_dim"]
        if heard != self.text_width:
            raise ValueError(
                f"expected text encoders of width {heard} together for this denoiser, got {self.text_widths}"
            )
        for part in self._modules:
            part.requires_grad_(False).eval()

    @property
    def _modules(self) -> list[nn.Module]:
        return [self.vae, self.denoiser, *self._text_encoders]

    @property
    def _text_encoders(self) -> list[Any]:
        return [e for e in (self.text_encoder, self.text_encoder_2) if e is not None]

    @property
    def _tokenizers(self) -> list[CLIPTokenizer]:
        return [t for t in (self.tokenizer, self.tokenizer_2) if t is not None]

    def to(self, device: torch.device | str) -> "DiffusionParts":
        """Move all parts, in place."""
        for part in self._modules:
            nn.Module.to(part, device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        device: torch.device = self.text_encoder.device
        return device

    @property
    def text_widths(self) -> tuple[int, ...]:
        """T of each text encoder."""
        return tuple(int(encoder.config.hidden_size) for encoder in self._text_encoders)

    @property
    def text_width(self) -> int:
        """T of all text encoders together."""
        return sum(self.text_widths)

    @property
    def pixels_per_latent(self) -> int:
        """Side of a latent's patch in pixels."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def word_embeddings(self) -> Tensor:
        """The text encoders' whole word tables, side by side (V, T)."""
        return torch.cat([e.get_input_embeddings().weight for e in self._text_encoders], dim=1)

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Mean word embedding (n, T) of each text, underscores read as spaces.

        For attribute names these are the words where a fused condition should start: unlike the
        whole table, they hold no token that was never trained.

        Raises:
            ValueError: for a text without any token.
        """
        parts = []
        for tokenizer, encoder in zip(self._tokenizers, self._text_encoders, strict=True):
            table, rows = encoder.get_input_embeddings().weight, []
            for text in texts:
                ids = tokenizer(text.replace("_", " "), add_special_tokens=False).input_ids
                if not ids:
                    raise ValueError(f"expected texts of one word or more, got {text!r}")
                rows.append(table[ids].mean(dim=0))
            parts.append(torch.stack(rows))
        return torch.cat(parts, dim=1)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) of pixels (B, 3, H, W) in [-1, 1]: the posterior's mean."""
        return encode_images(self.vae, pixels)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), about [-1, 1], of scaled latents (B, c, h, w)."""
        return decode_latents(self.vae, latents)

    def check_prompt(self, prompt: str) -> None:
        """Raise ValueError when `<emotion>` lies beyond the tokens that a text encoder takes."""
        for tokenizer in self._tokenizers:
            tokenize(tokenizer, [prompt])

    def text_states(self, prompts: Sequence[str], condition: Tensor | None = None) -> TextStates:
        """Text states that condition the denoiser.

        SDXL takes the layer before the last of both encoders, and the second one's pooled output.

        Args:
            prompts: B texts; `<emotion>` may stand anywhere.
            condition: (B, T) what `<emotion>` means, per prompt; gradients flow into it.

        Raises:
            ValueError: when counts differ, or `<emotion>` occurs and there is no condition.
        """
        if condition is None:
            if any(PLACEHOLDER in prompt for prompt in prompts):
                raise ValueError(f"a prompt holds {PLACEHOLDER}, but there is no condition for it")
            condition = torch.zeros(len(prompts), self.text_width, device=self.device)
        if len(condition) != len(prompts):
            raise ValueError(
                f"expected one condition per prompt, got {len(condition)} for {len(prompts)} prompts"
            )
        said = [
            encode_prompts(
                encoder,
                self._prompts.tokens(tokenizer, prompts, self.device),
                part,
                output_hidden_states=self.is_xl,
            )
            for encoder, tokenizer, part in zip(
                self._text_encoders, self._tokenizers, condition.split(self.text_widths, dim=1), strict=True
            )
        ]
        if not self.is_xl:
            return TextStates(said[0].last_hidden_state)
        return TextStates(torch.cat([s.hidden_states[-2] for s in said], dim=-1), said[1].text_embeds)

    def empty_states(self, count: int) -> TextStates:
        """Text states of the empty prompt, which guidance leads away from: (count, ...)."""
        states = self.text_states([""] * count)
        if states.pooled is None or not self.is_empty_zero:
            return states
        return TextStates(torch.zeros_like(states.hidden), torch.zeros_like(states.pooled))

    def denoise_loss(
        self, latents: Tensor, text: TextStates, generator: torch.Generator | None = None
    ) -> Tensor:
        """Diffusion loss (eq. 8), per sample (B,): MSE of predicted and true target.

        Args:
            latents: (B, c, h, w) scaled, clean.
            text: of B prompts.
            generator: draws time steps and noise, on its own device; without, torch's global one.
        """
        source = latents.device if generator is None else generator.device
        steps = int(self.schedule.config["num_train_timesteps"])
        drawn = torch.randint(steps, (len(latents),), generator=generator, device=source)
        t = cast(torch.IntTensor, drawn.to(latents.device))  # as diffusers declares it
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
        noisy = self.schedule.add_noise(latents, noise, t)
        height, width = (side * self.pixels_per_latent for side in latents.shape[-2:])
        predicted = self.denoiser(noisy, t, **denoiser_inputs(text, height=height, width=width)).sample
        error: Tensor = predicted.float() - self._target(latents, noise, t).float()
        return error.pow(2).mean(dim=(1, 2, 3))

    def _target(self, latents: Tensor, noise: Tensor, t: torch.IntTensor) -> Tensor:
        kind = self.schedule.config["prediction_type"]
        if kind == "v_prediction":
            return self.schedule.get_velocity(latents, noise, t)
        return noise if kind == "epsilon" else latents


def load_diffusion(name: str, *, revision: str | None = None, variant: str | None = None) -> DiffusionParts:
    """Load a Stable Diffusion (XL) pipeline, in fp32, from safetensors only.

    Args:
        name: `tiny` (shipped), a folder with model_index.json, or a hub id.
        revision: of a hub id.
        variant: `fp16` or `bf16` for weight files of that name.

    Raises:
        ValueError: one line, when a part is missing, damaged or of another shape than its config says.
    """
    folder = find_pipeline(name, revision=revision, variant=variant)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # it would fill the log of every actor
    seconds: dict[str, Any] = {}
    if folder.is_xl:
        second = _load_text(folder, "text_encoder_2", CLIPTextModelWithProjection)
        seconds = {
            "text_encoder_2": second,
            "tokenizer_2": _load_tokenizer(folder, "tokenizer_2", second.config),
        }
    text_encoder = _load_text(folder, "text_encoder", CLIPTextModel)
    return DiffusionParts(
        vae=load_vae(folder),
        denoiser=load_part(folder, "unet", UNet2DConditionModel, torch_dtype=torch.float32),
        text_encoder=text_encoder,
        tokenizer=_load_tokenizer(folder, "tokenizer", text_encoder.config),
        schedule=_training_schedule(folder.path),
        folder=folder,
        **seconds,
    )


def load_configured(diffusion: DiffusionConfig) -> DiffusionParts:
    """`load_diffusion` of the settings."""
    return load_diffusion(diffusion.model, revision=diffusion.revision, variant=diffusion.variant)


def load_tokenizers(diffusion: DiffusionConfig) -> list[CLIPTokenizer]:
    """The tokenizers of the settings' diffusion model, without its weights.

    Raises:
        ValueError: one line, when a part is missing or damaged.
    """
    folder = configured_pipeline(diffusion)
    found = []
    for number in ("", "_2") if folder.is_xl else ("",):
        encoder = CLIPTextConfig.from_pretrained(
            folder.path, subfolder=f"text_encoder{number}", local_files_only=True
        )
        found.append(_load_tokenizer(folder, f"tokenizer{number}", encoder))
    return found


def _load_text(folder: PipelineFolder, part: str, kind: Any) -> Any:
    # without this option transformers says that shapes differ, but not which
    return load_part(folder, part, kind, dtype=torch.float32, ignore_mismatched_sizes=True)


def _load_tokenizer(folder: PipelineFolder, part: str, encoder: CLIPTextConfig) -> CLIPTokenizer:
    """A tokenizer of the folder, whose words and length of texts are those of its text encoder."""
    words = int(encoder.vocab_size)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
            folder.path, subfolder=part, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises Exception itself
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"diffusion.model {folder.path}: {part} cannot be loaded ({reason}): copy the folder again"
        ) from None
    if len(tokenizer) != words:
        raise ValueError(
            f"diffusion.model {folder.path}: {part} has a vocabulary of {len(tokenizer)}, its text encoder "
            f"one of {words}: copy the folder again"
        )
    if lost := _unreachable_words(tokenizer):
        raise ValueError(
            f"diffusion.model {folder.path}: the merges of {part} never give {len(lost)} words of its "
            f"vocabulary, such as {min(lost)!r}: they are cut short, copy the folder again"
        )
    # a config without it gives 10^30
    tokenizer.model_max_length = min(tokenizer.model_max_length, int(encoder.max_position_embeddings))
    return tokenizer


def _unreachable_words(tokenizer: CLIPTokenizer) -> set[str]:
    """Words of several characters that no merge gives; a text would be cut into smaller pieces instead."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    given = {"".join(pair).replace(" ", "") for pair in model["merges"]}
    longer = {word for word in model["vocab"] if len(word.removesuffix("</w>")) > 1}
    return longer - given - set(tokenizer.get_added_vocab())


def unfreeze_denoiser(
    parts: DiffusionParts, *, mode: Literal["frozen", "lora", "full"], lora_rank: int = 8
) -> list[nn.Parameter]:
    """`train_denoiser` of a whole diffusion model.

    Call it once; to train the result, register `parts.denoiser` in the module that is optimised.
    """
    return train_denoiser(parts.denoiser, mode=mode, lora_rank=lora_rank)


def train_denoiser(
    denoiser: UNet2DConditionModel, *, mode: Literal["frozen", "lora", "full"], lora_rank: int
) -> list[nn.Parameter]:
    """Choose what trains of a frozen denoiser and return it: nothing, adapters on its attention, or all."""
    if mode == "lora":
        from peft import LoraConfig

        adapter = LoraConfig(
            r=lora_rank,
            lora_alpha=lora_rank,
            init_lora_weights="gaussian",
            target_modules=list(ATTENTION_LAYERS),
        )
        denoiser.add_adapter(adapter)
    elif mode == "full":
        denoiser.requires_grad_(True)
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


def _training_schedule(folder: Path) -> DDPMScheduler:
    """The folder's noise schedule in DDPM form, whichever sampler the folder names."""
    config = DDPMScheduler.load_config(folder, subfolder="scheduler")
    schedule: DDPMScheduler = DDPMScheduler.from_config(config)
    return schedule
