"""Settings of the published methods that UniEmo's images are compared with."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.config.diffusion import PLACEHOLDER
from uniemo_ray.settings_base import Settings

TrainedBaseline = Literal["soft_prompt", "textual_inversion", "emogen", "dreambooth"]
GenerationBaseline = Literal[
    "plain_prompt", "plain_prompt_sdxl", "soft_prompt", "textual_inversion", "emogen", "dreambooth"
]
EMOTION = "{emotion}"
"""What a prompt of words has where the name of a label goes."""
TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "a rendering of {}",
    "a depiction of {}",
    "a close-up photo of {}",
    "a cropped photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a good photo of {}",
    "the photo of {}",
)


class PlainPromptConfig(Settings):
    """The diffusion model with a prompt, without any training."""

    prompt: str = "an image of {emotion}"
    """Prompt of every label; the name of the label replaces `{emotion}`. Source: ours."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Other prompts for some labels, by the label's name. Source: ours."""
    sdxl_model: Address | None = None
    """Stable Diffusion XL of the baseline `plain_prompt_sdxl`: a diffusers folder (local or `s3://`), or a
    hub id. Source: paper, table IV."""
    sdxl_variant: Literal["fp16", "bf16"] | None = None
    """Weight files of SDXL, as `diffusion.variant`. Source: ours."""
    sdxl_size_px: int = Field(1024, ge=16, multiple_of=8)
    """Side of the images that SDXL makes. Metrics see them at `diffusion.size_px`. Unit: pixels. Source: the
    model's publication."""


class BaselineTraining(Settings):
    """How a baseline trains; one training for all labels."""

    epochs: int = Field(1, ge=1)
    """Passes over the training images. Unit: epochs. Source: ours."""
    images_per_emotion: int | None = Field(None, ge=1)
    """Training images of each label, drawn with the run's seed. None takes all. Unit: images. Source: ours;
    the publications of Textual Inversion and DreamBooth show 3 to 5 images of one object."""
    batch_size: int = Field(4, ge=1)
    """Global batch over all workers. Unit: images. Source: diffusers' example (1 image, 4 steps gathered)."""
    micro_batch: int | None = Field(None, ge=1)
    """Largest number of images that a worker passes through the model at once. None passes its whole share.
    Unit: images. Source: ours."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW. Unit: none. Source: ours."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate after the warm-up. Source: diffusers' examples."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of the linear warm-up. Unit: steps. Source: diffusers' examples."""
    weight_decay: float = Field(1e-2, ge=0)
    """Weight decay of AdamW. Unit: none. Source: diffusers' examples."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: diffusers' examples."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed's ZeRO stage. Unit: none. Source: ours."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Number format of matrix products, as `stage2.precision`. Source: ours."""
    gradient_checkpointing: bool = False
    """Recompute the denoiser's activations in the backward pass, which saves memory. Source: ours."""


class SoftPromptConfig(BaselineTraining):
    """A prompt of learnt word embeddings for each label, without any word of a language."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW. Unit: none. Source: ours."""
    vectors: int = Field(8, ge=1)
    """Word embeddings in a prompt. Unit: vectors. Source: ours."""


class TextualInversionConfig(BaselineTraining):
    """One new word for each label, of one or several learnt embeddings (Gal et al., 2023)."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW. Unit: none. Source: diffusers' example (5e-4, times a batch of 4)."""
    vectors: int = Field(1, ge=1)
    """Embeddings of a new word. Unit: vectors. Source: the method's publication."""
    initializer: str = EMOTION
    """Word whose embedding the new ones start from; it must be a single token. `{emotion}` is the name of the
    label. Source: diffusers' example."""
    initializers: dict[str, str] = Field(default_factory=dict)
    """Other words for some labels, by the label's name. Source: ours."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts of training, one drawn for each image and epoch; the new word replaces `{}`. Source: ours, a
    shorter list in the form of the publication's, which are CLIP's for ImageNet."""
    prompt: str = "a photo of {}"
    """Prompt of generation; the new word replaces `{}`. Source: the method's publication."""

    @field_validator("templates")
    @classmethod
    def _some_templates(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates:
            raise ValueError("expected at least one template")
        return tuple(map(_with_gap, templates))

    @field_validator("prompt")
    @classmethod
    def _has_gap(cls, prompt: str) -> str:
        return _with_gap(prompt)


class EmoGenConfig(BaselineTraining):
    """A network that maps image features of an emotion to the embedding of a word (Yang et al., 2024)."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW. Unit: none. Source: EmoGen's code."""
    layers: int = Field(2, ge=2)
    """Linear layers of the mapping. Unit: layers. Source: EmoGen's code."""
    hidden: int = Field(1024, ge=1)
    """Width of its hidden layers. Unit: channels. Source: EmoGen's code."""
    relu: bool = True
    """Whether a ReLU follows each layer but the last. Source: EmoGen's code."""
    layer_norm: bool = False
    """Whether a layer norm follows each layer but the last. Source: EmoGen's code."""
    dropout: bool = False
    """Whether half of the hidden values are dropped in training. Source: EmoGen's code."""
    attribute_weight: float = Field(0.01, ge=0)
    """Weight of the attribute loss beside an attribute's confidence. Unit: none. Source: EmoGen's code; its
    paper: 1."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Confidence below which an attribute does not count. Unit: probability. Source: EmoGen's code."""
    mapper: Address | None = None
    """File of a released mapping, which is used as it is; nothing trains then. It needs `space`, and
    `layers` to `dropout` as it was trained. Source: EmoGen's code."""
    space: Address | None = None
    """Folder of the emotion space that `mapper` reads: files `LABEL_mean_v2.pt` and `LABEL_std_v2.pt`.
    Source: EmoGen's code."""

    @model_validator(mode="after")
    def _both_released(self) -> "EmoGenConfig":
        if (self.mapper is None) != (self.space is None):
            raise ValueError(
                "mapper and space belong together: a released mapping reads the emotion space that it was "
                "trained on, and a mapping that trains here reads CLIP's; give both or none"
            )
        return self


class DreamBoothConfig(BaselineTraining):
    """The denoiser itself is fine-tuned (Ruiz et al., 2023); all labels share one."""

    lr: float = Field(5e-6, gt=0)
    """Peak learning rate of AdamW. Unit: none. Source: diffusers' example (2e-6 with the text encoder)."""
    gradient_clip: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: diffusers' example."""
    instance_prompt: str = "a photo of sks {emotion}"
    """Prompt of the training images and of generation; the name of the label replaces `{emotion}`. Source:
    diffusers' example."""
    class_prompt: str = "a photo of {emotion}"
    """Prompt of the class images. Source: diffusers' example."""
    prior_preservation: bool = True
    """Whether images that the untrained model makes of `class_prompt` are learnt as well. Source: the
    method's publication."""
    prior_weight: float = Field(1.0, ge=0)
    """Weight of their loss. Unit: none. Source: the method's publication."""
    class_images: int = Field(100, ge=1)
    """Class images of each label. Unit: images. Source: diffusers' example."""
    train_text_encoder: bool = False
    """Whether the text encoder trains as well; not with SDXL. Source: diffusers' example."""

    @field_validator("instance_prompt", "class_prompt")
    @classmethod
    def _names_label(cls, prompt: str) -> str:
        if EMOTION not in prompt or PLACEHOLDER in prompt:
            raise ValueError(f"prompt {prompt!r}: put {EMOTION} where the name of the label goes")
        return prompt


class GenerationBaselinesConfig(Settings):
    """Published methods that make images of an emotion; the job `generation_baselines` runs them."""

    run: tuple[GenerationBaseline, ...] = (
        "plain_prompt",
        "soft_prompt",
        "textual_inversion",
        "emogen",
        "dreambooth",
    )
    """Which baselines to run. `plain_prompt_sdxl` needs `plain_prompt.sdxl_model`. Source: paper, table
    IV."""
    per_emotion: int = Field(100, ge=2)
    """Images that each baseline makes of each label. It can grow later. Unit: images. Source: ours;
    published protocol: 1000."""
    plain_prompt: PlainPromptConfig = PlainPromptConfig()
    soft_prompt: SoftPromptConfig = SoftPromptConfig()
    textual_inversion: TextualInversionConfig = TextualInversionConfig()
    emogen: EmoGenConfig = EmoGenConfig()
    dreambooth: DreamBoothConfig = DreamBoothConfig()

    @field_validator("run")
    @classmethod
    def _some(cls, names: tuple[GenerationBaseline, ...]) -> tuple[GenerationBaseline, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"expected distinct baselines, at least one, got {list(names)}")
        return names


def _with_gap(prompt: str) -> str:
    if "{}" not in prompt or PLACEHOLDER in prompt:
        raise ValueError(f"prompt {prompt!r}: put {{}} where the new word goes")
    return prompt
