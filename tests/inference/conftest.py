"""Tiny random base models of the real architectures, in the real file formats."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.tiny.words import CONTEXT_LENGTH, write_tokenizers
from uniemo_ray.config import Config, DiffusionConfig, EncoderConfig, GenerationConfig
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.feedback.schema import coefficients_schema
from uniemo_ray.inference.heads import EmotionClassifier, LinearHead, ScorerHeads
from uniemo_ray.inference.model_folder import ModelParts, save_model_folder
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import CONFIG_FILE, WEIGHTS_FILE, ClipParts, load_clip
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.statistics.gaussian_space import GaussianSpace

TEXT_WIDTH = 16


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads; these tests compare bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Random weights; 32 px pictures from 8 x 8 latents, with a noise schedule as old files have it."""
    vocabulary = write_tokenizers(clip_dir=folder / "clip", pipeline_tokenizer_dir=folder / "tokenizer")
    torch.manual_seed(5)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    # random text states hardly steer a random denoiser; larger ones do
    text.get_input_embeddings().weight.data.mul_(50)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        scaling_factor=0.7,
    )
    schedule = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
    )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet.eval(),
        scheduler=schedule,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline folder of random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    make_pipeline(tmp_path_factory.mktemp("words")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline(pipeline_folder: Path) -> StableDiffusionPipeline:
    """The pipeline as diffusers itself loads it."""
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


SCENES = ("beach", "forest", "street")
OBJECTS = ("lion", "toy", "boat", "skull")
WIDTH, JOINT = 16, 12
CONFIG = Config(
    encoder=EncoderConfig(query_length=3, stage_layers=(1, 2), interactive_layers=1),
    diffusion=DiffusionConfig(size_px=32, steps=3, guidance=4.0),
    generation=GenerationConfig(micro_batch=4, threads=1),
)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipParts:
    """A random CLIP of three layers on 32 px pictures, loaded from a folder."""
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = write_tokenizers(clip_dir=folder, pipeline_tokenizer_dir=folder / "unused")
    model_cfg = {
        "embed_dim": JOINT,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": WIDTH, "patch_size": 8, "head_width": 8},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
        "quick_gelu": True,
    }
    torch.manual_seed(1)
    save_file(CLIP(**model_cfg).state_dict(), folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    return load_clip(str(folder))


def random_heads(labels: LabelSpace) -> ScorerHeads:
    """Random scorers."""
    torch.manual_seed(3)
    return ScorerHeads(
        EmotionClassifier(JOINT, 8, len(labels.labels)),
        scene=LinearHead(JOINT, len(SCENES)),
        object=LinearHead(JOINT, len(OBJECTS)),
        scene_names=SCENES,
        object_names=OBJECTS,
        labels=labels.labels,
    ).eval()


@pytest.fixture(scope="session")
def heads() -> ScorerHeads:
    """Random scorers of the eight emotions."""
    return random_heads(MIKELS)


def random_parts(
    clip: ClipParts, heads: ScorerHeads, pipeline_folder: Path, labels: LabelSpace
) -> ModelParts:
    """A random model whose emotions differ widely; of the last one it has seen no image."""
    diffusion, count = load_diffusion(str(pipeline_folder)), len(labels.labels)
    torch.manual_seed(2)
    net = build_net(
        CONFIG,
        clip=clip,
        scene_names=SCENES,
        object_names=OBJECTS,
        text_width=diffusion.text_width,
        classes=count,
    ).eval()
    net.fusion.start_at_words(diffusion.word_embeddings)
    rng = np.random.default_rng(4)
    alpha = {name: rng.dirichlet(np.ones(count)) for name in (*SCENES, *OBJECTS)}
    net.scenes.set_coefficients({name: alpha[name].tolist() for name in SCENES})
    net.objects.set_coefficients({name: alpha[name].tolist() for name in OBJECTS})
    rows = [
        {"attribute": name, "kind": "scene" if name in SCENES else "object", "count": 5}
        | {f"alpha_{emotion}": value for emotion, value in zip(labels.labels, alpha[name], strict=True)}
        for name in alpha
    ]
    members = ("scene", "object", "cls")
    space = GaussianSpace(
        mean={m: rng.normal(size=(count, WIDTH)) for m in members},
        std={m: np.full((count, WIDTH), 0.7) for m in members},
        counts=np.array([9] * (count - 1) + [0]),
        labels=labels.labels,
    )
    return ModelParts(
        config=CONFIG,
        clip_config=clip.config,
        merges=clip.merges.read_bytes() if clip.merges else None,
        net=net,
        diffusion=diffusion,
        space=space,
        coefficients=pa.Table.from_pylist(rows, schema=coefficients_schema(labels.labels)),
        scorers=heads,
        card="# A model",
        labels=labels,
    )


@pytest.fixture(scope="session")
def parts(clip: ClipParts, heads: ScorerHeads, pipeline_folder: Path) -> ModelParts:
    """A random model of the eight emotions; of sadness it has seen no image."""
    return random_parts(clip, heads, pipeline_folder, MIKELS)


@pytest.fixture(scope="session")
def model_folder(parts: ModelParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, saved. Do not change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model_folder(parts, folder)
    return folder
