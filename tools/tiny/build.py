"""Build the tiny base models stage by stage in a work folder; a finished stage is left as it is."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from tools.tiny import clip as tiny_clip
from tools.tiny.diffusion import TextToImage, make_noise_schedule, train_diffusion
from tools.tiny.quality import prompt_faithfulness
from tools.tiny.renders import Renders
from tools.tiny.train_recogniser import train_recogniser
from tools.tiny.vae import encode, reconstruction_psnr, train_decoder, train_vae
from tools.tiny.vague_words import train_vague_words
from tools.tiny.words import write_tokenizers
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.images import to_unit_range
from uniemo_ray.metrics.recogniser import load_recogniser, recognise
from uniemo_ray.models.clip import load_clip
from uniemo_ray.store.fingerprint import file_sha256

logger = logging.getLogger(__name__)
HELD_OUT_START = 10_000_000
"""Render indices from here on are never trained on."""


@dataclass(frozen=True)
class BuildConfig:
    """Sizes of the one-off training; the defaults made the shipped weights."""

    seed: int = 20260723
    renders: int = 32_000
    held_out: int = 2_000
    recogniser_steps: int = 500
    clip_steps: int = 900
    vae_steps: int = 3_600
    decoder_steps: int = 3_000
    diffusion_steps: int = 5_500
    vague_words_steps: int = 500


def build_recogniser(work: Path, config: BuildConfig) -> None:
    """Train the judge."""

    def run(target: Path) -> None:
        rule = load_rule()
        model = train_recogniser(
            Renders.load(work / "train.npz"),
            scenes=len(rule.scenes),
            objects=len(rule.objects),
            steps=config.recogniser_steps,
        )
        save_file(model.state_dict(), target)

    _once(work / "recogniser.safetensors", run)


def build_vae(work: Path, config: BuildConfig) -> None:
    """Train the autoencoder."""

    def run(target: Path) -> None:
        train_vae(Renders.load(work / "train.npz").pixels, steps=config.vae_steps).save_pretrained(target)

    _once(work / "vae", run)


def build_tokenizers(work: Path) -> None:
    """Write both tokenizers from one merges list."""

    def run(target: Path) -> None:
        write_tokenizers(clip_dir=target / "clip", pipeline_tokenizer_dir=target / "pipeline")

    _once(work / "tokenizers", run)


def build_clip(work: Path, config: BuildConfig) -> None:
    """Train the image and text towers."""

    def run(target: Path) -> None:
        tokenizer = tiny_clip.load_tokenizer(work / "tokenizers" / "clip")
        model = tiny_clip.train_clip(Renders.load(work / "train.npz"), tokenizer, steps=config.clip_steps)
        save_file(model.state_dict(), target)

    _once(work / "clip.safetensors", run)


def build_latents(work: Path) -> None:
    """Encode the training renders once, scaled."""

    def run(target: Path) -> None:
        vae = AutoencoderKL.from_pretrained(work / "vae").eval()
        latents = encode(vae, Renders.load(work / "train.npz").pixels) * vae.config.scaling_factor
        save_file({"latents": latents.half().contiguous()}, target)

    _once(work / "latents.safetensors", run)


def build_decoder(work: Path, config: BuildConfig) -> None:
    """Train the autoencoder's decoder further on the finished latents."""

    def run(target: Path) -> None:
        vae = AutoencoderKL.from_pretrained(work / "vae")
        latents = load_file(work / "latents.safetensors")["latents"].float() / vae.config.scaling_factor
        train_decoder(vae, Renders.load(work / "train.npz").pixels, latents, steps=config.decoder_steps)
        vae.save_pretrained(target)

    _once(work / "decoder", run)


def build_diffusion(work: Path, config: BuildConfig) -> None:
    """Train text encoder and denoiser; resumes from its own checkpoint."""

    def run(target: Path) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizers" / "pipeline")
        latents = load_file(work / "latents.safetensors")["latents"].float()
        parts = train_diffusion(
            Renders.load(work / "train.npz"),
            latents,
            tokenizer,
            steps=config.diffusion_steps,
            checkpoint=work / "diffusion.checkpoint",
        )
        parts.text_encoder.save_pretrained(target / "text_encoder")
        parts.denoiser.save_pretrained(target / "unet")

    _once(work / "diffusion", run)


def build_vague_words(work: Path, config: BuildConfig) -> None:
    """Give the words that no caption has taught their place in the text encoder."""

    def run(target: Path) -> None:
        encoder = CLIPTextModel.from_pretrained(work / "diffusion" / "text_encoder")
        denoiser = UNet2DConditionModel.from_pretrained(work / "diffusion" / "unet")
        train_vague_words(
            TextToImage(encoder, denoiser.to(memory_format=torch.channels_last)),
            Renders.load(work / "train.npz"),
            load_file(work / "latents.safetensors")["latents"].float(),
            CLIPTokenizer.from_pretrained(work / "tokenizers" / "pipeline"),
            steps=config.vague_words_steps,
        )
        encoder.save_pretrained(target)

    _once(work / "vague_words", run)


def _once(target: Path, run: Callable[[Path], None]) -> None:
    """Run a stage into a temporary name and rename it, unless its result is there."""
    if target.exists():
        logger.info("%s is there", target.name)
        return
    partial = target.with_name(f"partial-{target.name}")
    if partial.is_dir():
        shutil.rmtree(partial)
    run(partial)
    partial.replace(target)


def pack(work: Path, out: Path, config: BuildConfig, *, prompts: int = 384) -> dict[str, Any]:
    """Write the shipped folder in fp16 and measure exactly what is written; returns the card."""
    out.mkdir(parents=True, exist_ok=True)
    _pack_clip(work, out / "clip")
    _pack_diffusion(work, out / "diffusion")
    save_file(_half(load_file(work / "recogniser.safetensors")), out / "recogniser.safetensors")
    card = {
        "config": asdict(config),
        "data_sha256": file_sha256(work / "train.npz"),
        "quality": measure(out, Renders.load(work / "held.npz"), prompts=prompts),
        "bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}


def _pack_clip(work: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    shutil.copy(work / "tokenizers" / "clip" / "merges.txt.gz", out)
    tokenizer = tiny_clip.load_tokenizer(out)
    config = {
        "model_cfg": tiny_clip.clip_config(tokenizer.vocab_size),
        "preprocess_cfg": {
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(_half(load_file(work / "clip.safetensors")), out / "open_clip_model.safetensors")


def _pack_diffusion(work: Path, out: Path) -> None:
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "decoder"),
        unet=UNet2DConditionModel.from_pretrained(work / "diffusion" / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(work / "vague_words"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizers" / "pipeline"),
        scheduler=make_noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out)
    for path in out.rglob("*.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None):  # where it lay when it was packed
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def measure(out: Path, held: Renders, *, prompts: int) -> dict[str, float]:
    """Quality of a packed folder on unseen renders and on prompts."""
    recogniser = load_recogniser(out / "recogniser.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(out / "diffusion", torch_dtype=torch.float32)
    clip = load_clip(str(out / "clip")).model
    tokenizer = tiny_clip.load_tokenizer(out / "clip")
    pixels = to_unit_range(held.pixels)
    seen = recognise(recogniser, pixels)
    zero_shot = tiny_clip.zero_shot_accuracy(clip, tokenizer, held)
    faithful = prompt_faithfulness(pipeline, recogniser, images=prompts)
    return {
        "recogniser_scene_accuracy": float((seen.scene.numpy() == held.scenes).mean()),
        "recogniser_object_accuracy": float((seen.object.numpy() == held.objects).mean()),
        "clip_zero_shot_scene_accuracy": zero_shot.scene,
        "clip_zero_shot_object_accuracy": zero_shot.object,
        "vae_psnr_db": reconstruction_psnr(pipeline.vae, held.pixels),
        "prompt_scene_faithfulness": faithful.scene,
        "prompt_object_faithfulness": faithful.object,
        "prompt_images": float(faithful.images),
    }
