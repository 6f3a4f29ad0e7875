"""Every setting and default of a run, as frozen pydantic models; `settings_file` reads them from YAML."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from uniemo_ray.addresses import Address

PLACEHOLDER = "<emotion>"
"""What stands in a prompt for the fused condition."""
MAX_PIXELS = 50_000_000
"""Width x height of an image where nobody asks for more (`data.max_pixels`)."""
SPLITS = ("train", "val", "test")


class Settings(BaseModel):
    """Base of all settings: frozen, and a wrong key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(Settings):
    """Where the pictures come from."""

    kind: Literal["sketch", "emoset", "fi", "emotionroi", "twitter1", "twitter2", "folders"] = "sketch"
    """`sketch` generates EmoSketch; `folders` reads one folder per class; the others are published sets."""
    root: Address | None = None
    """Folder of the data set. Required for all but `sketch`."""
    labels: Literal["mikels", "ekman", "sentiment"] = "mikels"
    """Classes of a `folders` set: eight emotions, six emotions, or positive and negative."""
    valence: bool = False
    """Whether each label becomes its valence as the set is read: two classes, positive and negative, for
    training and test. Images whose label has none (surprise) are refused, by name."""
    agreement: Literal[3, 4, 5] = 3
    """How many of the five raters of `twitter1` must agree on a label (its published subsets)."""
    split_seed: int = 0
    """Seed of the splits of a set that comes without them."""
    sketch_train: int = Field(4000, ge=16)
    """Generated training images (embedded default, ours)."""
    sketch_val: int = Field(500, ge=8)
    """Generated validation images."""
    sketch_test: int = Field(1000, ge=8)
    """Generated test images."""
    sketch_seed: int = 0
    """Seed of the generated data set."""
    sketch_size_px: int = Field(64, ge=32, le=1024)
    """Side of a generated image."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """Images with more pixels are refused, by name (guards against decompression bombs)."""
    rows_per_shard: int = Field(4000, ge=1)
    """Most images of a canonical Parquet file."""
    shard_mb: int = Field(512, ge=1)
    """Most megabytes of images in it; a task that writes one holds about three times as much."""

    @model_validator(mode="after")
    def _needs_root(self) -> "DataConfig":
        if self.kind != "sketch" and not self.root:
            raise ValueError(f"data.kind is {self.kind!r} but data.root is empty: give the data set's folder")
        return self

    @model_validator(mode="after")
    def _no_idle_settings(self) -> "DataConfig":
        for name, kind in (("labels", "folders"), ("agreement", "twitter1")):
            is_default = getattr(self, name) == type(self).model_fields[name].default
            if self.kind != kind and not is_default:
                raise ValueError(
                    f"data.{name} is a setting of data.kind {kind!r}, but the kind is {self.kind!r}"
                )
        return self


class EncoderConfig(Settings):
    """CLIP image tower with expert queries (section 1)."""

    clip: Address = "tiny"
    """`tiny` (shipped), a folder with open_clip_config.json (here or `s3://`), or an open_clip model name."""
    clip_pretrained: Address | None = None
    """Tag or weight file for an open_clip model name."""
    queries: Literal["none", "single_step", "multi_stage"] = "multi_stage"
    """Figure 6: no queries; both sets from the first layer on; or scene first, then object (paper)."""
    query_length: int = Field(32, ge=1)
    """Q, tokens per query set (paper: 32, figure 7)."""
    stage_layers: tuple[int, int] | None = None
    """(L1, L2): last layer of stage 1 and of stage 2. Default N/3 and 2N/3."""
    interactive_layers: int = Field(2, ge=1)
    """Layers of an interactive block (paper 2, released code 1)."""
    interactive_context: Literal["patches", "tokens"] = "patches"
    """Cross-attention context: patches (paper) or cls and patches (released code)."""
    interactive_residual: Literal["beta", "replace"] = "beta"
    """`S + beta S~` (paper) or the refined query alone (released code)."""
    tower: Literal["train", "frozen"] = "train"
    """Whether CLIP's own weights train."""


class FusionConfig(Settings):
    """From expert features to one condition (eq. 6)."""

    members: tuple[Literal["cls", "patch", "scene", "object"], ...] = ("cls", "scene", "object")
    """What is fused (table V)."""
    use_coefficients: bool = True
    """Weigh scene and object by alpha (table V); otherwise both weigh 1."""
    joint_training: bool = True
    """Figure 8: whether stage 2 also trains the encoder. Without, only phi and the condition head."""
    start: Literal["words", "plain"] = "words"
    """Where conditions start in the first stage 2: spread as the words of the attribute base are (ours), or
    by phi's random weights alone (eq. 6 as written, released code)."""

    @model_validator(mode="after")
    def _distinct(self) -> "FusionConfig":
        if not self.members or len(set(self.members)) != len(self.members):
            raise ValueError(f"fusion.members must be distinct and not empty, got {list(self.members)}")
        return self


class DiffusionConfig(Settings):
    """The latent diffusion model and how it is sampled."""

    model: Address = "tiny"
    """`tiny` (shipped), a diffusers folder of Stable Diffusion or SDXL (here or `s3://`), or a hub id."""
    revision: str | None = None
    """Commit of a hub id; means nothing for a folder."""
    variant: Literal["fp16", "bf16"] | None = None
    """Read `*.fp16.safetensors` (or bf16) instead of the plain weight files."""
    text_widths: tuple[int, ...] | None = None
    """T of each text encoder. By default read from the model, which then must be there already in stage 1."""
    denoiser: Literal["frozen", "lora", "full"] = "frozen"
    """What trains of the denoiser in stage 2 (paper: frozen)."""
    lora_rank: int = Field(8, ge=1)
    """Rank of the low-rank adapters for `denoiser: lora`."""
    prompt: str = PLACEHOLDER
    """Prompt of training and generation; `<emotion>` takes the fused condition."""
    plain_prompt: str = "an image of {emotion}"
    """Prompt of the reference that knows no UniEmo."""
    size_px: int = Field(64, ge=16, multiple_of=8)
    """Side of the images: VAE input in stage 2, output in generation (paper: 512)."""
    steps: int = Field(20, ge=1)
    """Sampling steps (released code: 50)."""
    guidance: float = Field(4.0, ge=0)
    """Classifier-free guidance scale (released code: 7.5)."""
    scheduler: Literal["unipc", "ddim"] = "unipc"
    """Sampler (released code: UniPC multistep)."""
    target: Literal["whole", "crop"] = "whole"
    """What stage 2 denoises: the whole image, whose latent is computed once, or the encoder's random crop,
    which needs the VAE in every step (ours)."""
    frozen_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Stored form and arithmetic of denoiser and text encoders; half of the memory. Only with a frozen
    denoiser; the VAE stays fp32, because that of SDXL overflows in fp16."""
    channels_last: bool = False
    """Memory layout of VAE and denoiser: faster convolutions on GPUs, the same numbers up to rounding."""
    vae_slicing: bool = False
    """VAE one image at a time: less memory for large images."""

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


class LossConfig(Settings):
    """Weights and variants of the losses (eq. 4, 7, 9, 10)."""

    scene_weight: float = Field(0.25, ge=0)
    """Eq. 9 (released code: 0.05)."""
    object_weight: float = Field(0.25, ge=0)
    """Eq. 9 (released code: 0.05)."""
    class_weight: float = Field(0.5, ge=0)
    """Eq. 9 (released code: 0.9)."""
    temperature: float = Field(0.07, gt=0)
    """Eq. 4."""
    learn_temperature: bool = False
    """A learnable temperature per term (released code: true)."""
    is_symmetric: bool = False
    """Contrast in both directions (released code: true)."""
    same_attribute_negatives: bool = False
    """Whether images that share an attribute repel each other (paper's plain form: true)."""
    understanding_weight: float = Field(0.3, ge=0)
    """Eq. 10."""
    condition_weight: float = Field(0.3, ge=0)
    """Eq. 10."""
    diffusion_weight: float = Field(0.4, ge=0)
    """Eq. 10."""
    condition: Literal["none", "cross_entropy", "triplet"] = "triplet"
    """Emotional condition loss (eq. 7) and its alternatives (table V)."""
    margin: float = Field(0.1, ge=0)
    """Eq. 7."""


class LearningRates(Settings):
    """One rate per parameter group; equal rates are the paper's form."""

    tower: float = Field(1e-4, ge=0)
    """CLIP's own weights (paper 1e-4, released code 8e-6)."""
    queries: float = Field(1e-4, ge=0)
    """Queries, interactive blocks and projections (paper 1e-4, released code 5e-4)."""
    heads: float = Field(1e-4, ge=0)
    """Classification and condition heads (paper 1e-4, released code 1e-4)."""
    fusion: float = Field(1e-2, ge=0)
    """phi1..3 in stage 2 (paper 1e-2, released code 1e-3)."""
    denoiser: float = Field(1e-4, ge=0)
    """Denoiser, unless frozen."""


class TrainConfig(Settings):
    """One training stage."""

    epochs: int = Field(15, ge=1)
    """Passes over the training set (released code: 15)."""
    later_epochs: int | None = Field(None, ge=1)
    """Passes in the rounds after the first, which start from trained weights. Default: as many."""
    batch_size: int = Field(128, ge=1)
    """Global batch over all workers (paper: 128)."""
    rates: LearningRates = LearningRates()
    """Peak learning rates."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate over the stage, after the warm-up."""
    warmup_steps: int = Field(20, ge=0)
    """Linear warm-up."""
    weight_decay: float = Field(1e-3, ge=0)
    """AdamW, not on biases, norms and other 1-D parameters (paper: 1e-3; released code: 1e-2)."""
    tower_weight_decay: float | None = Field(None, ge=0)
    """Weight decay of CLIP's own weights (released code: 1e-3). Default: the value of `weight_decay`."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest global gradient norm."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Arithmetic of matrix products in training; `auto` is bf16 where all workers' processors have it.
    `fp16`, with a loss scale that adapts itself, is for GPUs without bf16."""
    sampling: Literal["natural", "emotion", "attribute"] = "natural"
    """What an epoch shows equally often: images, emotions, or also the scenes of every emotion (ours)."""
    most_repeats: float = Field(4.0, ge=1)
    """How often an image of a rare emotion or scene is seen in an epoch at most, on average."""
    gradient_checkpointing: bool = False
    """Compute activations of tower and denoiser again in the backward pass: less memory, a third slower."""
    compile: bool = False
    """Let `torch.compile` fuse tower and denoiser; the first step takes minutes and needs a C++ compiler."""
    augment: bool = True
    """Random resized crop and flip; evaluation never augments."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Area share of the random crop."""
    checkpoint_every_s: float = Field(30.0, gt=0)
    """Seconds between checkpoints (also one at the end of every epoch)."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many are kept."""

    @model_validator(mode="after")
    def _scales_by_zero(self) -> "TrainConfig":
        if self.precision == "fp16" and self.zero_stage == 0:
            raise ValueError("precision fp16 needs zero_stage 1, 2 or 3, whose optimizers know a loss scale")
        return self


class ScorerConfig(Settings):
    """Section-2 emotion classifier and the scene and object heads, on frozen CLIP features."""

    epochs: int = Field(30, ge=1)
    """Passes over the training features."""
    lr: float = Field(1e-3, gt=0)
    """AdamW."""
    hidden: int = Field(256, ge=1)
    """Width of the emotion classifier's hidden layer."""


class GenerationConfig(Settings):
    """The explicit feedback's images."""

    per_emotion: int = Field(100, ge=1)
    """Images generated per emotion and round."""
    micro_batch: int = Field(8, ge=1)
    """Fixed batch of the sampler, padded at the tail: part of what determines an image's bytes."""
    threads: int = Field(1, ge=1)
    """CPU threads of a generating actor: part of what determines an image's bytes."""
    rows_per_shard: int = Field(64, ge=1)
    """Images per committed Parquet file."""
    actors: int = Field(2, ge=1)
    """Most actors that generate."""
    retries: int = Field(2, ge=0)
    """How often a failed shard is tried again; then its rows are tried alone, and those that fail are kept as
    rows with a reason."""

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


class FilterConfig(Settings):
    """Dual-metric filter (Algorithm 1)."""

    eta: float = Field(20, ge=0, le=100)
    """Best share that goes, in percent (table VII)."""
    delta: float = Field(80, ge=0, le=100)
    """Where the kept rank band ends, in percent (table VII)."""
    scope: Literal["global", "per_emotion"] = "global"
    """Rank all images together (paper) or each emotion by itself."""
    criteria: tuple[Literal["emo", "sem"], ...] = ("emo", "sem")
    """Scores that must lie in the band (table VI)."""

    @model_validator(mode="after")
    def _band(self) -> "FilterConfig":
        if self.eta >= self.delta:
            raise ValueError(f"filter.eta must be below filter.delta, got {self.eta} and {self.delta}")
        if not self.criteria or len(set(self.criteria)) != len(self.criteria):
            raise ValueError(f"filter.criteria must be distinct and not empty, got {list(self.criteria)}")
        return self


class FeedbackConfig(Settings):
    """How generated images come back into training."""

    rounds: int = Field(1, ge=0)
    """Feedback rounds after the first training."""
    synthetic_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of kept generated images in the mixed training set (table VIII)."""


class EvaluationConfig(Settings):
    """Section 6."""

    pairs: int = Field(1000, ge=1)
    """Seeded pairs per emotion for LPIPS and Sem-D; all pairs when there are fewer."""
    plain_per_emotion: int = Field(40, ge=1)
    """Images per emotion of the plain-prompt reference."""
    model: Address | None = None
    """Model folder that `jobs/understanding.py` judges on the test split instead of training one."""
    weights_dir: Address | None = None
    """Folder, readable on every machine, with the published files of Inception-v3 (adds `fid`), AlexNet
    (`lpips_alex`) and ResNet-50 of both Places365 and ImageNet (`sem_c`), when the user has them."""


class ResourceConfig(Settings):
    """What a run asks of its cluster."""

    workers: int = Field(2, ge=1)
    """Training workers, one process each."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPUs of a training worker or actor."""
    use_gpu: bool = False
    """One GPU per training worker and actor."""
    actors: int = Field(2, ge=1)
    """Most actors that extract features and score."""
    min_actors: int = Field(1, ge=1)
    """Fewest actors of a pool, of those that generate as well: it works as soon as so many have room, and
    shrinks to them when there is less to do or machines leave."""
    memory_gb_per_actor: float = Field(1.5, gt=0)
    """Memory that an actor reserves; no machine gets more actors than it has memory for."""
    price_per_node_hour: float = Field(0.0, ge=0)
    """Price of a machine, in any currency: with it, progress tells the cost so far."""
    max_failures: int = Field(2, ge=0)
    """Restarts of a training stage from its last checkpoint."""


class Config(Settings):
    """A whole run of the feedback loop."""

    run: Address = "runs/feedback"
    """Run folder: a local path or `s3://bucket/prefix`."""
    seed: int = 0
    """Seed of everything random but the data set."""
    data: DataConfig = DataConfig()
    encoder: EncoderConfig = EncoderConfig()
    fusion: FusionConfig = FusionConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    losses: LossConfig = LossConfig()
    stage1: TrainConfig = TrainConfig()
    stage2: TrainConfig = TrainConfig()
    scorers: ScorerConfig = ScorerConfig()
    generation: GenerationConfig = GenerationConfig()
    filter: FilterConfig = FilterConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourceConfig = ResourceConfig()

    def for_round(self, round_: int) -> "Config":
        """The settings of one round, counted from 1: its own number of epochs, and no other's."""
        stages = {name: getattr(self, name) for name in ("stage1", "stage2")}
        epochs = {
            name: stage.later_epochs if round_ > 1 and stage.later_epochs else stage.epochs
            for name, stage in stages.items()
        }
        return self.model_copy(
            update={
                name: stage.model_copy(update={"epochs": epochs[name], "later_epochs": None})
                for name, stage in stages.items()
            }
        )

    @model_validator(mode="after")
    def _batches_split(self) -> "Config":
        for name in ("stage1", "stage2"):
            size, workers = getattr(self, name).batch_size, self.resources.workers
            if size % workers:
                raise ValueError(
                    f"{name}.batch_size {size} does not split over resources.workers {workers}: "
                    f"use a multiple of {workers}"
                )
        if self.diffusion.target == "crop" and not self.stage2.augment:
            raise ValueError(
                "diffusion.target is 'crop' but stage2.augment is off, so there is no crop: "
                "set diffusion.target to whole"
            )
        if self.data.kind == "sketch" and self.data.sketch_train < self.stage1.batch_size:
            raise ValueError(
                f"data.sketch_train {self.data.sketch_train} is less than one batch of stage1 "
                f"({self.stage1.batch_size}): lower stage1.batch_size or make more images"
            )
        return self
