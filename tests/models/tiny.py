"""Small random models of the real architectures."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.tiny.words import CONTEXT_LENGTH, write_tokenizers
from uniemo_ray.config import Config
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import CONFIG_FILE, MERGES_FILE, WEIGHTS_FILE, ClipParts, load_clip, make_clip
from uniemo_ray.models.uniemo import UniEmoNet

WIDTH, JOINT, TEXT_WIDTH = 16, 12, 16
SCENES = ("beach", "amusement_park", "street")
OBJECTS = ("lion", "toy", "boat", "skull")


def clip_config(*, layers: int = 6, vocabulary: int = 600) -> dict[str, Any]:
    """32 px pictures, patch 8: 16 patches."""
    return {
        "embed_dim": JOINT,
        "vision_cfg": {"image_size": 32, "layers": layers, "width": WIDTH, "patch_size": 8, "head_width": 8},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
        "quick_gelu": True,
    }


def make_tower(*, layers: int = 6, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return CLIP(**clip_config(layers=layers)).visual.eval()


def pictures(count: int = 2, *, seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def write_clip_folder(clip: ClipParts, folder: Path, *, with_weights: bool = False) -> None:
    """Write config and vocabulary, and on request the weights, so that `folder` can be read again.

    Without weights the folder serves `read_clip_config` and `make_clip`; with them also `load_clip`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(clip.config, indent=2) + "\n")
    if clip.merges:
        shutil.copyfile(clip.merges, folder / MERGES_FILE)
    if with_weights:
        weights = {key: value.contiguous().clone() for key, value in clip.model.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)


def write_clip(folder: Path, *, seed: int = 1) -> ClipParts:
    """A CLIP folder with random weights, loaded back."""
    vocabulary = write_tokenizers(clip_dir=folder, pipeline_tokenizer_dir=folder / "unused")
    torch.manual_seed(seed)
    config = clip_config(vocabulary=vocabulary)
    raw = ClipParts(make_clip(config), list, 32, (0, 0, 0), (1, 1, 1), {"model_cfg": config})
    write_clip_folder(raw, folder, with_weights=True)
    return load_clip(str(folder))


def make_net(
    clip: ClipParts,
    *,
    words: torch.Tensor | None = None,
    text_width: int | tuple[int, ...] = TEXT_WIDTH,
    **sections: dict[str, Any],
) -> UniEmoNet:
    """Six layers, three queries per set; `sections` override the config."""
    values = {"encoder": {"query_length": 3, "interactive_layers": 1}, "fusion": {}, "losses": {}}
    config = Config.model_validate({key: values[key] | sections.get(key, {}) for key in values})
    torch.manual_seed(2)
    net = build_net(config, clip=clip, scene_names=SCENES, object_names=OBJECTS, text_width=text_width).eval()
    if words is not None:
        net.fusion.start_at_words(words)
    return net


def text_config(vocabulary: int, **changes: Any) -> CLIPTextConfig:
    values = {
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_act": "quick_gelu",
        "projection_dim": 10,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    return CLIPTextConfig(**values | changes)


def make_vae(**changes: Any) -> AutoencoderKL:
    """16 px pictures, 4 x 8 x 8 latents."""
    values = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 16,
        "mid_block_add_attention": False,
        "scaling_factor": 0.7,
    }
    return AutoencoderKL(**values | changes)


def make_denoiser(text_width: int, **changes: Any) -> UNet2DConditionModel:
    values = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": text_width,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**values | changes)


def loud(encoder: Any) -> Any:
    """Random text states hardly steer a random denoiser; larger ones do."""
    encoder.get_input_embeddings().weight.data.mul_(50)
    return encoder


def write_pipeline(
    folder: Path, *, target: str = "v_prediction", seed: int = 5, shift_factor: float | None = 0.3
) -> Path:
    """A Stable Diffusion folder with random weights: 16 px pictures, 4 x 8 x 8 latents."""
    vocabulary = write_tokenizers(
        clip_dir=folder / "words", pipeline_tokenizer_dir=folder / "words" / "tokenizer"
    )
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        text_encoder=loud(CLIPTextModel(text_config(vocabulary))),
        vae=make_vae(shift_factor=shift_factor),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "words" / "tokenizer"),
        unet=make_denoiser(TEXT_WIDTH),
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", prediction_type=target),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


XL_WIDTHS, XL_POOLED = (16, 24), 10


def write_xl_pipeline(folder: Path, *, seed: int = 6, is_empty_zero: bool = True) -> Path:
    """A Stable Diffusion XL folder with random weights and what is special about SDXL's own files.

    The second encoder has another activation, the second tokenizer pads with "!", and both encoders'
    configs name end token 2, which means: the highest id.
    """
    words = folder / "words" / "tokenizer"
    vocabulary = write_tokenizers(clip_dir=folder / "words", pipeline_tokenizer_dir=words)
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    first = text_config(vocabulary, **ids)
    second = text_config(
        vocabulary,
        **ids,
        hidden_size=XL_WIDTHS[1],
        hidden_act="gelu",
        num_hidden_layers=3,
        projection_dim=XL_POOLED,
    )
    torch.manual_seed(seed)
    pipeline = StableDiffusionXLPipeline(
        text_encoder=loud(CLIPTextModel(first)),
        text_encoder_2=loud(CLIPTextModelWithProjection(second)),
        vae=make_vae(),
        tokenizer=CLIPTokenizer.from_pretrained(words),
        tokenizer_2=CLIPTokenizer.from_pretrained(words, pad_token="!"),
        unet=make_denoiser(
            sum(XL_WIDTHS),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + XL_POOLED,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        # as SDXL's file has it, with entries that Stable Diffusion's pipeline would overrule
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", steps_offset=0, clip_sample=True),
        force_zeros_for_empty_prompt=is_empty_zero,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder
