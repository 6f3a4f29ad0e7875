"""Settings of the baselines of understanding, which `jobs/baselines.py` runs."""

from typing import Literal, get_args

from pydantic import Field, field_validator

from uniemo_ray.addresses import Address
from uniemo_ray.settings_base import Settings

UnderstandingBaseline = Literal[
    "zero_shot",
    "linear_probe",
    "coop",
    "cocoop",
    "fine_tuning",
    "resnet",
    "blip2",
    "instructblip",
    "llava",
]
UNDERSTANDING_BASELINES: tuple[UnderstandingBaseline, ...] = get_args(UnderstandingBaseline)
TrainedBaseline = Literal["coop", "cocoop", "fine_tuning", "resnet"]
TRAINED_BASELINES: tuple[TrainedBaseline, ...] = get_args(TrainedBaseline)
LanguageBaseline = Literal["blip2", "instructblip", "llava"]
LANGUAGE_BASELINES: tuple[LanguageBaseline, ...] = get_args(LanguageBaseline)
NAME = "{}"
"""What a prompt has in the place of a class's name."""
IMAGE = "<image>"
"""What LLaVA's prompt has in the place of the image."""


class ZeroShotConfig(Settings):
    """CLIP without training: the class whose prompts are nearest to the image (Radford et al., 2021)."""

    prompts: tuple[str, ...] = (
        "a photo of {}.",
        "a picture of {}.",
        "an image of {}.",
        "a photo full of {}.",
        "a photo that evokes {}.",
        "a picture that makes people feel {}.",
        "an image that expresses {}.",
        "a scene of {}.",
    )
    """Prompts of the ensemble; `{}` stands for the class. Their normalised text features are averaged and
    normalised again. Source: ours; CLIP's own prompts are about objects."""

    @field_validator("prompts")
    @classmethod
    def _names_the_class(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts:
            raise ValueError("expected at least one prompt")
        for prompt in prompts:
            if prompt.count(NAME) != 1:
                raise ValueError(f"expected one {NAME} in each prompt, for the class, got {prompt!r}")
        return prompts


class LinearProbeConfig(Settings):
    """Logistic regression on frozen CLIP image features, fitted by L-BFGS (Radford et al., 2021)."""

    l2: tuple[float, ...] = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)
    """Weights of the L2 penalty to start the search from. The intercept is not penalised. Unit: loss of one
    image for half of a squared unit of the weights. Source: CLIP's paper."""
    steps_per_decade: int = Field(8, ge=1)
    """Resolution at which the search ends: the interval around the best penalty on the validation split is
    halved until it is reached. Unit: penalties for each factor of 10. Source: CLIP's paper."""
    iterations: int = Field(1000, ge=1)
    """Largest number of L-BFGS iterations for one penalty. Unit: iterations. Source: CLIP's paper."""

    @field_validator("l2")
    @classmethod
    def _positive(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if not penalties or min(penalties) <= 0 or list(penalties) != sorted(set(penalties)):
            raise ValueError(f"expected positive numbers in rising order, got {list(penalties)}")
        return penalties


class BaselineTraining(Settings):
    """What all baselines that train have in common."""

    epochs: int = Field(15, ge=1)
    """Passes over the training split. Unit: epochs. Source: that of stage 1."""
    batch_size: int = Field(128, ge=1)
    """Global batch over all workers. Unit: images. Source: that of stage 1."""
    micro_batch: int | None = Field(None, ge=1)
    """Largest number of images that a worker passes through the model at once. None passes its whole share.
    Unit: images. Source: ours."""
    rate: float = Field(1e-4, gt=0)
    """Peak learning rate. It falls to 0 along half a cosine. Unit: none. Source: that of stage 1."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of the linear warm-up. Unit: steps. Source: ours."""
    weight_decay: float = Field(1e-3, ge=0)
    """Weight decay. That of AdamW does not apply to biases, norms and other 1-D parameters. Unit: none.
    Source: that of stage 1."""
    gradient_clip: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: that of stage 1."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with a momentum of 0.9, whose weight decay applies to all parameters. Source: that of
    stage 1."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Number format of matrix products in training. Source: ours."""
    augment: bool = True
    """Train with a random resized crop and a flip. Source: released code of CoOp."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest share of the image's area that the random crop keeps. Unit: fraction. Source: that
    of stage 1."""


class CoOpConfig(BaselineTraining):
    """CoOp: learned context vectors before the class's name, both towers frozen (Zhou et al., IJCV 2022)."""

    epochs: int = Field(50, ge=1)
    """Passes over the training split. Unit: epochs. Source: released code, for one image of each class; 200
    for 16 images."""
    batch_size: int = Field(32, ge=1)
    """Global batch over all workers. Unit: images. Source: released code."""
    rate: float = Field(2e-3, gt=0)
    """Peak learning rate. It falls to 0 along half a cosine. Unit: none. Source: released code."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay. Unit: none. Source: released code."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: released code."""
    optimizer: Literal["adamw", "sgd"] = "sgd"
    """AdamW, or SGD with a momentum of 0.9, whose weight decay applies to all parameters. Source: released
    code."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area that the random crop keeps. Unit: fraction. Source:
    released code."""
    context_length: int = Field(16, ge=1)
    """Number of learned vectors. Unit: tokens. Source: paper."""
    position: Literal["end", "middle", "front"] = "end"
    """Where the class's name stands: behind the context, in the middle of it, or before it. Source: paper."""
    is_class_specific: bool = False
    """Whether each class has a context of its own. Source: paper, which recommends it for some fine-grained
    sets alone."""
    start: str | None = None
    """Words whose embeddings the context starts from, as many tokens as `context_length`. None draws it from
    a normal distribution of standard deviation 0.02. Source: paper."""


class CoCoOpConfig(BaselineTraining):
    """CoCoOp: CoOp's shared context, shifted for each image by a small network (Zhou et al., CVPR 2022)."""

    epochs: int = Field(10, ge=1)
    """Passes over the training split. Unit: epochs. Source: paper."""
    batch_size: int = Field(8, ge=1)
    """Global batch over all workers. Every image has prompts of its own, so that an image costs as many
    passes of the text tower as there are classes. Unit: images. Source: ours; paper: 1, for want of
    memory."""
    rate: float = Field(2e-3, gt=0)
    """Peak learning rate. It falls to 0 along half a cosine. Unit: none. Source: paper."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay. Unit: none. Source: released code."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: released code."""
    optimizer: Literal["adamw", "sgd"] = "sgd"
    """AdamW, or SGD with a momentum of 0.9, whose weight decay applies to all parameters. Source: released
    code."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area that the random crop keeps. Unit: fraction. Source:
    released code."""
    context_length: int = Field(4, ge=1)
    """Number of learned vectors. Unit: tokens. Source: paper."""
    start: str | None = "a photo of a"
    """Words whose embeddings the context starts from, as many tokens as `context_length`. None draws it from
    a normal distribution of standard deviation 0.02. Source: paper."""
    reduction: int = Field(16, ge=1)
    """Width of the image feature over that of the hidden layer. Unit: none. Source: paper."""


class FineTuningConfig(BaselineTraining):
    """CLIP's whole image tower and a fresh linear layer on its image feature."""

    head_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of the linear layer; `rate` is that of the tower. Unit: none. Source: that of stage
    1."""


class ResNetConfig(BaselineTraining):
    """ResNet-101 from ImageNet with a fresh last layer. Its file lies in `evaluation.weights_dir`.

    Batch norms keep ImageNet's statistics.
    """

    head_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of the last layer; `rate` is that of all others. Unit: none. Source: ours."""


class LanguageModelConfig(Settings):
    """A vision-language model of transformers without training: the class that it gives most likelihood."""

    model: Address | None = None
    """Folder in transformers' layout, or a hub id. The baseline needs it. Source: ours."""
    prompt: str = "Question: Which emotion does this picture evoke? Answer:"
    """What stands before the class's name. Source: ours."""
    score: Literal["sum", "mean"] = "sum"
    """Log-likelihood of a name: sum over its tokens, or their mean, which favours no short names. Source:
    ours."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of weights and products. Source: ours."""
    micro_batch: int = Field(8, ge=1)
    """Images that pass the model at once, padded at the end. Unit: images. Source: ours."""


class InstructBlipConfig(LanguageModelConfig):
    """InstructBLIP, whose query transformer reads the question as well."""

    prompt: str = "Which emotion does this picture evoke? Answer:"
    """What stands before the class's name. Source: ours."""


class LlavaConfig(LanguageModelConfig):
    """LLaVA, whose prompt says where the image stands."""

    prompt: str = "USER: <image>\nWhich emotion does this picture evoke? ASSISTANT:"
    """What stands before the class's name. Source: ours, in the form of LLaVA 1.5."""

    @field_validator("prompt")
    @classmethod
    def _shows_the_image(cls, prompt: str) -> str:
        if prompt.count(IMAGE) != 1:
            raise ValueError(f"expected one {IMAGE}, where the image stands, got {prompt!r}")
        return prompt


class UnderstandingBaselinesConfig(Settings):
    """Baselines of understanding."""

    run: tuple[UnderstandingBaseline, ...] = ("zero_shot", "linear_probe", "coop", "cocoop", "fine_tuning")
    """Which baselines the job `baselines` runs, in the order of its table. Source: ours."""
    zero_shot: ZeroShotConfig = ZeroShotConfig()
    linear_probe: LinearProbeConfig = LinearProbeConfig()
    coop: CoOpConfig = CoOpConfig()
    cocoop: CoCoOpConfig = CoCoOpConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    resnet: ResNetConfig = ResNetConfig()
    blip2: LanguageModelConfig = LanguageModelConfig()
    instructblip: InstructBlipConfig = InstructBlipConfig()
    llava: LlavaConfig = LlavaConfig()

    @field_validator("run")
    @classmethod
    def _distinct(cls, names: tuple[UnderstandingBaseline, ...]) -> tuple[UnderstandingBaseline, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"expected distinct baselines, at least one, got {list(names)}")
        return names
