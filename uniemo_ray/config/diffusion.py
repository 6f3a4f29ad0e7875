"""Settings of the diffusion model, and of what it generates."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.settings_base import Settings

PLACEHOLDER = "<emotion>"
"""The word of a prompt that the fused condition replaces."""
PNG_LEVEL = 6
"""Default of `generation.png_level`."""


class DiffusionConfig(Settings):
    """The latent diffusion model and how it is sampled."""

    model: Address = "tiny"
    """Diffusion model: `tiny` (shipped), a diffusers folder of Stable Diffusion or SDXL (local or `s3://`),
    or a hub id. Source: paper uses Stable Diffusion 1.5 and SDXL; the default is ours."""
    revision: str | None = None
    """Commit of a hub id. It has no effect on a folder. Source: ours."""
    variant: Literal["fp16", "bf16"] | None = None
    """Read `*.fp16.safetensors` or `*.bf16.safetensors` instead of the plain weight files. Source: ours."""
    text_widths: tuple[int, ...] | None = None
    """T, the embedding width of each text encoder. None reads the widths from the model, which must then
    exist before stage 1. Unit: channels. Source: the model."""
    denoiser: Literal["frozen", "lora", "full"] = "frozen"
    """Which weights of the denoiser stage 2 trains: none, low-rank adapters, or all. Source: paper, section
    III-B."""
    lora_rank: int = Field(8, ge=1)
    """Rank of the adapters that `denoiser: lora` trains. Unit: none. Source: ours."""
    prompt: str = PLACEHOLDER
    """Prompt of training and generation. The fused condition replaces `<emotion>`. Source: ours."""
    plain_prompt: str = "an image of {emotion}"
    """Prompt of the reference images, which the diffusion model makes without UniEmo. Source: ours."""
    size_px: int = Field(64, ge=16, multiple_of=8)
    """Side of the images that the VAE reads in stage 2 and that generation makes. Unit: pixels. Source: ours;
    released code: 512."""
    steps: int = Field(20, ge=1)
    """Sampling steps. Unit: steps. Source: ours; released code: 50."""
    guidance: float = Field(4.0, ge=0)
    """Scale of classifier-free guidance. Unit: none. Source: ours; released code: 7.5."""
    scheduler: Literal["unipc", "ddim"] = "unipc"
    """Sampler: UniPC multistep or DDIM. Source: released code."""
    target: Literal["whole", "crop"] = "whole"
    """What stage 2 denoises: the whole image, whose latent is computed once, or the encoder's random crop,
    which needs the VAE in every step. Source: ours."""
    frozen_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format in which a frozen denoiser and its text encoders are stored and computed; `bf16` and
    `fp16` halve their memory. The VAE stays in fp32 because SDXL's VAE overflows in fp16. Source: ours."""
    channels_last: bool = False
    """Store VAE and denoiser in the channels-last memory layout. This makes convolutions faster on GPUs and
    changes results by rounding only. Source: ours."""
    vae_slicing: bool = False
    """Pass one image at a time through the VAE, which saves memory for large images. Source: ours."""

    @model_validator(mode="after")
    def _has_placeholder(self) -> "DiffusionConfig":
        if PLACEHOLDER not in self.prompt:
            raise ValueError(
                f"diffusion.prompt {self.prompt!r} has no {PLACEHOLDER}, so no image would have a condition: "
                f"put it where the emotion goes"
            )
        return self

    @model_validator(mode="after")
    def _trains_in_fp32(self) -> "DiffusionConfig":
        if self.denoiser != "frozen" and self.frozen_dtype != "fp32":
            raise ValueError(
                f"diffusion.frozen_dtype {self.frozen_dtype} needs a frozen denoiser, got {self.denoiser!r}: "
                f"set frozen_dtype to fp32 (stage2.precision bf16 still multiplies in bf16)"
            )
        return self


class EmotionSpaceConfig(Settings):
    """Where the features of new images are drawn."""

    kind: Literal["gaussian", "mixture", "neighbours"] = "gaussian"
    """`gaussian`: one for each emotion, members independent. `mixture`: several for each emotion, all members
    from one of them. `neighbours`: those of a real training image, jittered, so that pictures stay near real
    ones.
    Source: paper (gaussian); ours (the others)."""
    components: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of components of a mixture to choose from, for each emotion by the likelihood of held-out
    images. Unit: components. Source: ours."""
    jitter: float = Field(0.3, ge=0)
    """Distance of a draw from its neighbour in each dimension. Unit: standard deviations of the emotion.
    Source: ours."""
    sample: int = Field(1024, ge=16)
    """Most images of each emotion behind the centres of a mixture, and most neighbours that the model folder
    keeps. Unit: images. Source: ours."""

    @field_validator("components")
    @classmethod
    def _some_components(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if not numbers or min(numbers) < 1 or len(set(numbers)) != len(numbers):
            raise ValueError(f"expected distinct numbers of at least 1, got {list(numbers)}")
        return numbers


class GenerationConfig(Settings):
    """The images that are generated for the explicit feedback."""

    per_emotion: int = Field(100, ge=1)
    """Images that each round generates per emotion. Unit: images. Source: ours."""
    micro_batch: int = Field(8, ge=1)
    """Fixed batch of the sampler; the last one is padded. It is one of the settings that determine an image's
    bytes. Unit: images. Source: ours."""
    threads: int = Field(1, ge=1)
    """CPU threads of an actor that generates. It is one of the settings that determine an image's bytes.
    Unit: threads. Source: ours."""
    prompt: str | None = None
    """Prompt of generation where it is not that of training. `<emotion>` stands for the fused condition,
    `{scene}` and `{object}` for the attributes that the drawn features are nearest to. None means
    `diffusion.prompt`. Source: ours."""
    rows_per_shard: int = Field(64, ge=1)
    """Images in one committed Parquet shard. Unit: images. Source: ours."""
    actors: int = Field(2, ge=1)
    """Largest number of actors that generate. Unit: actors. Source: ours."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Number format in which generation stores and computes denoiser and text encoders, also of a denoiser
    that was trained. None means the value of `diffusion.frozen_dtype`. The VAE stays in fp32. Another format
    makes the images anew and trains nothing again. Source: ours."""
    compile: bool = False
    """Let `torch.compile` fuse the denoiser that generates, on GPUs alone. The first images of each actor
    then take minutes and need a C compiler. Source: ours."""
    png_level: int = Field(PNG_LEVEL, ge=0, le=9)
    """Effort of PNG's compression, which loses nothing: 1 is fastest, 9 smallest, 0 stores plain pixels.
    Unit: none. Source: ours, Pillow's default."""
    score: Literal["inline", "later"] = "inline"
    """When images are scored: by the actor that generates them, which then holds CLIP as well, or by other
    actors that read all images again (`later`). The scores are the same. Source: ours."""
    retries: int = Field(2, ge=0)
    """How often a failed shard is tried again. After that its rows are tried one by one, and a row that fails
    is kept with a reason. Unit: attempts. Source: ours."""

    @field_validator("prompt")
    @classmethod
    def _has_placeholder(cls, prompt: str | None) -> str | None:
        if prompt is not None and PLACEHOLDER not in prompt:
            raise ValueError(f"prompt {prompt!r} has no {PLACEHOLDER}: put it where the emotion goes")
        return prompt

    @model_validator(mode="after")
    def _rows_split_evenly(self) -> "GenerationConfig":
        check_threads(self.micro_batch, self.threads)
        return self


def check_threads(micro_batch: int, threads: int) -> None:
    """Refuse a micro-batch in which an image's bits would depend on its place.

    Threads share a batch by rows; where the split is uneven, rows meet different kernels (seen with
    3 rows on 2 threads: differences of 1e-6).

    Raises:
        ValueError: naming both numbers.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if micro_batch > 1 and micro_batch % threads:
        raise ValueError(
            f"micro_batch {micro_batch} does not split over {threads} threads: use a multiple, or 1"
        )
