"""Every setting and default of a run, as frozen pydantic models; `settings_file` reads them from YAML.

The docstring below a field is its entry in the settings reference. It says what the field is, the unit of a
number (`Unit: ...`, `none` where it has none) and where the default is from (`Source: ...`).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.pools import PoolsConfig, check_pool_settings
from uniemo_ray.settings_base import Settings

PLACEHOLDER = "<emotion>"
"""The word of a prompt that the fused condition replaces."""
MAX_PIXELS = 50_000_000
"""Default of `data.max_pixels`, in pixels (width x height)."""
PNG_LEVEL = 6
"""Default of `generation.png_level`."""
SPLITS = ("train", "val", "test")
FOLDED = ("emotionroi", "twitter1", "twitter2")
"""Kinds of data set that `data.fold` splits."""


class DataConfig(Settings):
    """Where the images come from and how they become Parquet shards."""

    kind: Literal["sketch", "emoset", "fi", "emotionroi", "twitter1", "twitter2", "folders"] = "sketch"
    """Data set: `sketch` generates EmoSketch, `folders` reads one folder per class, the others are published
    sets. Source: ours."""
    root: Address | None = None
    """Folder of the data set, on a disk of every machine or in a bucket (`s3://bucket/folder`). Every kind
    except `sketch` requires it. Source: ours."""
    labels: Literal["mikels", "ekman", "sentiment"] = "mikels"
    """Classes of a `folders` set: eight emotions, six emotions, or positive and negative. Source: ours."""
    valence: bool = False
    """Replace each label by its valence when the set is read, which leaves two classes, positive and
    negative. Images whose label has no valence (surprise) are refused and listed by name. Source: ours."""
    agreement: Literal[3, 4, 5] = 3
    """How many of the five raters of `twitter1` must agree on a label. Unit: raters. Source: the subsets that
    its authors publish."""
    split_seed: int = 0
    """Seed that draws the splits of a set that has none. Unit: none. Source: ours."""
    fold: int | None = Field(None, ge=0, le=4)
    """Which of five folds of `emotionroi`, `twitter1` or `twitter2` is the test split. All images of the set
    are dealt into them, class by class, with `split_seed`; a sixteenth of the other four validates. None
    takes the set's own lists, or draws one fifth. Unit: none (0 to 4). Source: the literature on these sets
    tests on five folds."""
    sketch_train: int = Field(4000, ge=16)
    """Training images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_val: int = Field(500, ge=8)
    """Validation images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_test: int = Field(1000, ge=8)
    """Test images that EmoSketch generates. Unit: images. Source: ours."""
    sketch_seed: int = 0
    """Seed of EmoSketch. Unit: none. Source: ours."""
    sketch_size_px: int = Field(64, ge=32, le=1024)
    """Side of an EmoSketch image. Unit: pixels. Source: ours."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """Images with more pixels than this are refused and listed by name, as a guard against decompression
    bombs. Unit: pixels (width x height). Source: ours."""
    rows_per_shard: int = Field(4000, ge=1)
    """Largest number of images in one canonical Parquet shard. Unit: images. Source: ours."""
    shard_mb: int = Field(512, ge=1)
    """Largest size of the images in one canonical Parquet shard. The task that writes a shard holds about
    three times as much in memory. Unit: MB. Source: ours."""

    @model_validator(mode="after")
    def _needs_root(self) -> "DataConfig":
        if self.kind != "sketch" and not self.root:
            raise ValueError(f"data.kind is {self.kind!r} but data.root is empty: give the data set's folder")
        return self

    @model_validator(mode="after")
    def _folds_where_they_are_used(self) -> "DataConfig":
        if self.fold is not None and self.kind not in FOLDED:
            raise ValueError(
                f"data.fold is a setting of data.kind {', '.join(FOLDED)}, but the kind is {self.kind!r}"
            )
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
    """CLIP image tower with expert queries (section III-A)."""

    clip: Address = "tiny"
    """CLIP weights: `tiny` (shipped), a folder with open_clip_config.json (local or `s3://`), or an open_clip
    model name. Source: paper uses ViT-B/32, B/16 and L/14; the default is ours."""
    clip_pretrained: Address | None = None
    """Pretrained tag or weight file that belongs to an open_clip model name. Source: ours."""
    queries: Literal["none", "single_step", "multi_stage"] = "multi_stage"
    """Form of the expert queries: `none`, both sets from the first layer on (`single_step`), or scene first
    and object after it (`multi_stage`). Source: paper, figure 6."""
    query_length: int = Field(32, ge=1)
    """Q, the number of tokens in each query set. Unit: tokens. Source: paper, figure 7."""
    stage_layers: tuple[int, int] | None = None
    """(L1, L2), the last layer of stage 1 and of stage 2. None means N/3 and 2N/3 of N layers. Unit: layers.
    Source: paper."""
    interactive_layers: int = Field(2, ge=1)
    """Layers of an interactive block. Unit: layers. Source: paper; released code: 1."""
    interactive_context: Literal["patches", "tokens"] = "patches"
    """Context of the cross-attention: the patches, or the class token and the patches (`tokens`). Source:
    paper, eq. 2; released code: `tokens`."""
    interactive_residual: Literal["beta", "replace"] = "beta"
    """Output of an interactive block: `S + beta S~` (`beta`), or the refined query alone (`replace`). Source:
    paper, eq. 3; released code: `replace`."""
    query_start: float = Field(1.0, gt=0)
    """Standard deviation of the normal distribution from which fresh queries are drawn. Unit: none. Source:
    released code; the paper names none."""
    interactive_start: Literal["uniform", "normal"] = "uniform"
    """Where the linear layers of fresh interactive blocks start: torch's own uniform distribution, or a
    normal one with standard deviation 0.02 and biases of 0 (`normal`). Source: ours; released code:
    `normal`."""
    tower: Literal["train", "frozen"] = "train"
    """Whether CLIP's own weights are trained. Source: paper."""
    preprocess: Literal["clip", "imagenet", "half"] = "clip"
    """How the encoder sees a picture, in training and after it. `clip`: shorter side to the tower's input
    (bicubic), centre crop, CLIP's mean and deviation. `imagenet`: the same, but bilinear and with ImageNet's
    mean and deviation. `half`: shorter side to 8/7 of the input, 256 for 224 (bilinear), centre crop, mean
    and deviation 0.5. Frozen features, which the scorers judge, are always CLIP's own. Source: ours; released
    code: `imagenet` in stage 1, `half` in stage 2."""


class FusionConfig(Settings):
    """Fusion of the expert features into one condition (eq. 6)."""

    members: tuple[Literal["cls", "patch", "scene", "object"], ...] = ("cls", "scene", "object")
    """Features that are fused. Source: paper, table V."""
    use_coefficients: bool = True
    """Weight the scene and object features by alpha. When this is off, both weights are 1. Source: paper,
    table V."""
    joint_training: bool = True
    """Train the encoder in stage 2 as well. When this is off, stage 2 trains only phi and the condition head.
    Source: paper, figure 8."""
    start: Literal["words", "plain"] = "words"
    """Where conditions start in the first stage 2: with the mean and spread of the attribute base's word
    embeddings (`words`), or with phi's random weights alone (`plain`). Source: ours; paper, eq. 6, and
    released code: `plain`."""
    match: Literal["projected", "mapped"] = "projected"
    """What finds the attribute of a query: its projection, among the names of its own kind (`projected`), or
    its mapping phi, among scenes and objects together, names with their underscores (`mapped`). `mapped`
    compares conditions with CLIP's text embeddings, so both must be of one width: ViT-L/14 and SD 1.5.
    Source: paper; released code: `mapped`."""
    condition_head: Literal["own", "classifier"] = "own"
    """What reads the emotion from a condition in eq. 7: a linear head of its own, or the last layer of the
    emotion classifier (`classifier`), which takes conditions of width 768 only. Source: paper; released code:
    `classifier`."""

    @model_validator(mode="after")
    def _distinct(self) -> "FusionConfig":
        if not self.members or len(set(self.members)) != len(self.members):
            raise ValueError(f"fusion.members must be distinct and not empty, got {list(self.members)}")
        return self


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


class LossConfig(Settings):
    """Weights and variants of the losses (eq. 4, 7, 9 and 10)."""

    scene_weight: float = Field(0.25, ge=0)
    """Weight of the scene contrast in eq. 9. Unit: none. Source: paper, eq. 9; released code: 0.05."""
    object_weight: float = Field(0.25, ge=0)
    """Weight of the object contrast in eq. 9. Unit: none. Source: paper, eq. 9; released code: 0.05."""
    class_weight: float = Field(0.5, ge=0)
    """Weight of the classification loss in eq. 9. Unit: none. Source: paper, eq. 9; released code: 0.9."""
    temperature: float = Field(0.07, gt=0)
    """Temperature tau of the contrast. Unit: none. Source: paper, eq. 4."""
    scene_temperature: float | None = Field(None, gt=0)
    """Temperature of the scene contrast. None means the value of `temperature`. Unit: none. Source: paper,
    eq. 4; released code: 0.01."""
    learn_temperature: bool = False
    """Train one temperature per contrastive term. Source: paper, eq. 4; released code: it trains neither of
    its two."""
    projections: Literal["trained", "random"] = "trained"
    """What projects the queries into CLIP's joint space: matrices that train, or fixed ones that are drawn
    from N(0, 1) (`random`). Source: ours; released code: `random`."""
    names: Literal["spaces", "verbatim"] = "spaces"
    """How CLIP's text tower reads the name of an attribute: with spaces in place of its underscores, or as it
    is (`verbatim`). Source: ours; released code: `verbatim`."""
    several_objects: Literal["drawn", "last"] = "drawn"
    """Which object counts for an image that has several: one that each epoch draws, or the last of its list.
    Source: ours; released code: `last`."""
    missing_attribute: Literal["left_out", "negative"] = "left_out"
    """What an image without the attribute does in the contrast: nothing, or it stays a negative of the others
    with the name "scene" or "object" (`negative`). Source: ours; released code: `negative`."""
    contrast: Literal["global", "worker"] = "global"
    """Which images are contrasted: the whole batch, or each worker's share of it, which depends on the number
    of workers. Neither depends on `micro_batch`. Source: paper, eq. 4; released code: `worker`."""
    is_symmetric: bool = False
    """Compute the contrast in both directions. Source: paper, eq. 4; released code: true."""
    same_attribute_negatives: bool = False
    """Treat images that share an attribute as negatives of each other. Source: ours; paper, eq. 4: true."""
    joint_attributes: Literal["contrast", "heads"] = "contrast"
    """How stage 2 supervises scenes and objects: by the contrast of stage 1, or by two linear heads on the
    pooled queries, which only the training has (`heads`): cross-entropy over the scenes, binary cross-entropy
    over the objects. Source: ours; released code: `heads`, as it trains on one image at a time."""
    understanding_weight: float = Field(0.3, ge=0)
    """Weight of the understanding loss in stage 2. Unit: none. Source: paper, eq. 10; released code: 0.5."""
    condition_weight: float = Field(0.3, ge=0)
    """Weight of the emotional condition loss in stage 2; with `condition: both`, of its triplet loss.
    Unit: none. Source: paper, eq. 10; released code: 1e-6."""
    diffusion_weight: float = Field(0.4, ge=0)
    """Weight of the diffusion loss in stage 2. Unit: none. Source: paper, eq. 10; released code: 1."""
    condition: Literal["none", "cross_entropy", "triplet", "both"] = "triplet"
    """Form of the emotional condition loss. Source: paper, eq. 7 and table V; released code: `both`."""
    cross_entropy_weight: float = Field(0.001, ge=0)
    """Weight of the cross-entropy beside the triplet loss in stage 2, with `condition: both`. Unit: none.
    Source: released code."""
    margin: float = Field(0.1, ge=0)
    """Margin of the triplet loss. Unit: none. Source: paper, eq. 7; released code: 0.5."""
    distance_of: Literal["probabilities", "logits"] = "probabilities"
    """What the triplet loss measures the cosine distance of: the condition head's probabilities, or its
    logits. Source: paper, eq. 7; released code: `logits`."""


class LearningRates(Settings):
    """Peak learning rate of each part; 0 freezes it. With equal rates there is one rate, as in the paper."""

    tower: float = Field(1e-4, ge=0)
    """Rate of CLIP's own weights. Unit: none. Source: paper; released code: 8e-6 in stage 1, 0 in stage 2."""
    queries: float = Field(1e-4, ge=0)
    """Rate of queries, interactive blocks, projections and temperatures. Unit: none. Source: paper; released
    code: 5e-4."""
    heads: float = Field(1e-4, ge=0)
    """Rate of the classification head and the condition head. Unit: none. Source: paper; released code: 1e-4
    in stage 1, 0 in stage 2."""
    fusion: float = Field(1e-2, ge=0)
    """Rate of phi_1 to phi_3 in stage 2. Unit: none. Source: paper; released code: 1e-3."""
    denoiser: float = Field(1e-4, ge=0)
    """Rate of the denoiser, unless it is frozen. Unit: none. Source: ours."""
    attribute_heads: float = Field(1e-4, gt=0)
    """Rate of the heads of `losses.joint_attributes: heads`. Unit: none. Source: released code."""


class TrainConfig(Settings):
    """One training stage."""

    epochs: int = Field(15, ge=1)
    """Passes over the training set. Unit: epochs. Source: released code."""
    later_epochs: int | None = Field(None, ge=1)
    """Passes in the second and later rounds, which start from trained weights. None means the value of
    `epochs`. Unit: epochs. Source: ours."""
    batch_size: int = Field(128, ge=1)
    """Global batch over all workers, which share it as equally as they can. Unit: images. Source: paper."""
    micro_batch: int | None = Field(None, ge=1)
    """Largest number of images that a worker passes through the model at once. A worker with a larger share
    of the batch takes several such passes before each update, and needs the memory of one. The update is the
    same up to rounding, because the contrast still compares all images. With a value the random numbers do
    not depend on the number of workers. None passes the whole share at once. Unit: images. Source: ours."""
    rates: LearningRates = LearningRates()
    """Peak learning rates. Source: paper."""
    schedule: Literal["constant", "cosine", "cosine_cycles"] = "cosine"
    """Course of the learning rate after the warm-up: its peak throughout, half a cosine down to 0 at the end
    of the stage, or a cosine that falls to 0 and rises again to the peak over and over (`cosine_cycles`).
    Source: ours; released code: `cosine_cycles`."""
    half_cycle_steps: int = Field(32, ge=1)
    """Steps in which `cosine_cycles` goes from the peak to 0, and again from 0 to the peak. Unit: steps.
    Source: released code."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of the linear warm-up. Unit: steps. Source: ours."""
    weight_decay: float = Field(1e-3, ge=0)
    """Weight decay of AdamW. It does not apply to biases, norms and other 1-D parameters. Unit: none. Source:
    paper; released code: 1e-2."""
    tower_weight_decay: float | None = Field(None, ge=0)
    """Weight decay of CLIP's own weights. None means the value of `weight_decay`. Unit: none. Source: paper;
    released code: 1e-3."""
    gradient_clip: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient. None does not clip. Unit: none. Source: ours; released code:
    none."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed's ZeRO stage. Unit: none. Source: ours."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Number format of matrix products in training. `auto` chooses bf16 where every worker's processor
    supports it. `fp16` uses a dynamic loss scale and is meant for GPUs without bf16. Source: ours."""
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format in which workers exchange gradients. `bf16` halves the traffic, which pays between
    machines, and rounds each worker's gradient to 8 bits of precision; weights, moments and the update stay
    fp32. Source: ours."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of a running average of the weights after each step. The averaged weights are then the ones that
    are validated and that the stage leaves, and a checkpoint holds them as well. In the first steps the decay
    is smaller, (1 + step) / (10 + step). Common is 0.9999 for long stages. None keeps no average. Unit: none.
    Source: ours."""
    sampling: Literal["natural", "emotion", "attribute"] = "natural"
    """What an epoch balances: nothing (`natural`), the emotions (`emotion`), or the scenes of every emotion
    as well (`attribute`). Source: ours."""
    most_repeats: float = Field(4.0, ge=1)
    """Upper bound of how often an epoch shows an image of a rare emotion or scene, on average. Unit: repeats.
    Source: ours."""
    gradient_checkpointing: bool = False
    """Recompute activations of tower and denoiser in the backward pass. This saves memory and takes about a
    third more time. Source: ours."""
    compile: bool = False
    """Let `torch.compile` fuse tower and denoiser. The first step then takes minutes and needs a C++
    compiler. Source: ours."""
    decode: Literal["worker", "cluster"] = "worker"
    """Where training images are decoded and augmented: in threads of the worker that trains on them, one less
    than its CPUs, or in tasks on all CPUs of the cluster that no worker holds (`cluster`), for machines with
    too few CPUs for their GPU. The pixels are the same. Source: ours."""
    validate_on: Literal["val", "test", "none"] = "val"
    """Split on which losses and accuracy are measured after every epoch, for history and report. Source:
    ours; released code: `test`."""
    keep_epoch: Literal["last", "best"] = "last"
    """Which epoch's weights the stage leaves: the last one's, or those of the epoch with the highest accuracy
    on `validate_on`. Chosen on the test split, an accuracy on the test split is too high. Source: ours;
    released code: `best`, on the test split."""
    stop_after_epochs_without_gain: int | None = Field(None, ge=1)
    """End the stage early after so many epochs in a row whose accuracy on `validate_on` is not above the best
    before. Together with `keep_epoch: best` the stage leaves the best epoch's weights. The learning rate
    follows its course for all `epochs`. None never stops early. Unit: epochs. Source: ours."""
    augment: bool = True
    """Train with a random resized crop and a flip. Evaluation never augments. Source: ours."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest share of the image's area that the random crop keeps. Unit: fraction. Source:
    ours."""
    checkpoint_every_s: float = Field(30.0, gt=0)
    """Shortest time between two checkpoints inside an epoch. It grows where saving is slow, see
    `checkpoint_share`. The end of an epoch writes one without this wait. Unit: seconds. Source: ours."""
    checkpoint_share: float = Field(0.03, gt=0, le=1)
    """Largest share of the time in which workers are held up by saving. What the last checkpoint took decides
    how long the next one waits: 6 s at 0.03 means 194 s of training. 1 sets no limit. Then a checkpoint comes
    every `checkpoint_every_s` and at the end of every epoch. Unit: fraction. Source: ours."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of checkpoints that are kept. Unit: checkpoints. Source: ours."""

    @model_validator(mode="after")
    def _best_by_something(self) -> "TrainConfig":
        if self.keep_epoch == "best" and self.validate_on == "none":
            raise ValueError("keep_epoch is 'best', but validate_on is 'none': choose a split to judge by")
        if self.stop_after_epochs_without_gain and self.validate_on == "none":
            raise ValueError(
                "stop_after_epochs_without_gain is set, but validate_on is 'none': choose a split to judge by"
            )
        return self

    @model_validator(mode="after")
    def _scales_by_zero(self) -> "TrainConfig":
        if self.precision == "fp16" and self.zero_stage == 0:
            raise ValueError("precision fp16 needs zero_stage 1, 2 or 3, whose optimizers know a loss scale")
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


class ScorerConfig(Settings):
    """Emotion classifier, scene head and object head on frozen CLIP features (section III-B)."""

    epochs: int = Field(30, ge=1)
    """Passes over the training features. Unit: epochs. Source: ours."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of AdamW. Unit: none. Source: ours."""
    hidden: int = Field(256, ge=1)
    """Width of the emotion classifier's hidden layer. Unit: channels. Source: ours."""


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


class FilterConfig(Settings):
    """Filter on two scores (Algorithm 1)."""

    eta: float = Field(20, ge=0, le=100)
    """Lower end of the rank band: the best eta percent are dropped. Unit: percent. Source: paper, table
    VII."""
    delta: float = Field(80, ge=0, le=100)
    """Upper end of the rank band: images that rank behind delta percent are dropped. Unit: percent. Source:
    paper, table VII."""
    scope: Literal["global", "per_emotion"] = "global"
    """Rank all images together, or each emotion by itself. Source: paper."""
    criteria: tuple[Literal["emo", "sem"], ...] = ("emo", "sem")
    """Scores that must lie in the band. Source: paper, table VI."""
    on_empty: Literal["continue", "fail"] = "continue"
    """What follows when no image lies in the band: the next round trains on the real images alone, with a
    warning in log and report, or the run ends with an error. Source: ours."""

    @model_validator(mode="after")
    def _band(self) -> "FilterConfig":
        if self.eta >= self.delta:
            raise ValueError(f"filter.eta must be below filter.delta, got {self.eta} and {self.delta}")
        if not self.criteria or len(set(self.criteria)) != len(self.criteria):
            raise ValueError(f"filter.criteria must be distinct and not empty, got {list(self.criteria)}")
        return self


class FeedbackConfig(Settings):
    """How generated images return to training."""

    rounds: int = Field(1, ge=0)
    """Feedback rounds after the first training. Unit: rounds. Source: paper."""
    synthetic_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of kept generated images in the mixed training set. Unit: fraction. Source: paper, table VIII."""
    real_images: int | None = Field(None, ge=16)
    """Real training images that count, drawn with the run's seed: networks, scorers, coefficients and
    emotion space are made from these alone. Metrics compare with the whole training split. None means all.
    Unit: images. Source: ours."""
    later_real_images: int | None = Field(None, ge=16)
    """The same in the second and later rounds, as a control with more real images in place of generated ones.
    None means the value of `real_images`. Unit: images. Source: ours."""

    @model_validator(mode="after")
    def _later_is_of_something(self) -> "FeedbackConfig":
        if self.later_real_images is not None and self.real_images is None:
            raise ValueError("feedback.later_real_images needs feedback.real_images: give both")
        return self


class EvaluationConfig(Settings):
    """Metrics of a round (section IV)."""

    pairs: int = Field(1000, ge=1)
    """Seeded pairs per emotion for our forms of LPIPS and Sem-D. All pairs are taken when there are fewer.
    The published protocol, `lpips` and `sem_d`, always has its 10. Unit: pairs. Source: ours."""
    plain_per_emotion: int = Field(40, ge=1)
    """Images per emotion of the plain-prompt reference. Unit: images. Source: ours."""
    model: Address | None = None
    """Model folder that the job `understanding` evaluates on the test split. None trains one. Source:
    ours."""
    weights_dir: Address | None = None
    """Folder with published weights: Inception-v3 (adds `fid` and `fid_train`), AlexNet (`lpips` and
    `lpips_alex`), both ResNet-50, Places365 and ImageNet (`sem_c`), and EmoGen's judge (`emo_a`, where
    `encoder.clip` is OpenAI's ViT-L/14). Every machine must be able to read it. Source: the publications of
    these metrics."""


class WorkerRange(Settings):
    """Bounds of a number of training workers that follows the machines there are."""

    min: int = Field(1, ge=1)
    """Fewest workers that a stage trains with. Below it, the stage waits. Unit: processes. Source: ours."""
    max: int = Field(2, ge=1)
    """Most workers that a stage trains with, and what the cluster is asked for. Unit: processes. Source:
    ours."""

    @model_validator(mode="after")
    def _ordered(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(f"resources.workers: min {self.min} is above max {self.max}")
        return self


def _number_or_bounds(value: object) -> str:
    return "bounds" if isinstance(value, (dict, WorkerRange)) else "number"


class ResourceConfig(Settings):
    """Resources that a run asks its cluster for."""

    workers: Annotated[
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[WorkerRange, Tag("bounds")],
        Discriminator(_number_or_bounds),
    ] = 2
    """Training workers, one process each: a number, or bounds such as `{min: 2, max: 8}`. With bounds a stage
    trains with the machines there are, loses workers with them and takes new ones in. Unit: processes.
    Source: ours."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPUs of a training worker or an actor. Unit: CPUs. Source: ours."""
    use_gpu: bool = False
    """Give each training worker one GPU, and each actor `gpus_per_actor`. Source: ours."""
    gpus_per_actor: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that an actor of a frozen model takes: with 0.25 four of them share one, each with a
    copy of its model in the GPU's memory. Actors that generate take a whole GPU. Unit: GPUs. Source: ours."""
    tf32: bool = True
    """Let the GPUs of actors round the factors of fp32 products to TF32, which has 10 bits instead of 23 and
    is several times as fast. Without it every product is exact fp32. It has no effect on CPUs. Source:
    ours."""
    actors: int = Field(2, ge=1)
    """Largest number of actors that extract features and score. Unit: actors. Source: ours."""
    min_actors: int = Field(1, ge=1)
    """Minimum size of an actor pool, also for generation. Work starts once this many actors are placed. The
    pool shrinks to it when there is less work or machines leave. Unit: actors. Source: ours."""
    memory_gb_per_actor: float = Field(1.5, gt=0)
    """Memory that an actor reserves. Ray places no more actors on a machine than its memory allows. Unit: GB.
    Source: ours."""
    cache_gb: float | None = Field(None, gt=0)
    """Size of the training images that each machine keeps on its disk, in the folder for temporary files.
    Those that nobody has used for the longest time make room for others. None means half of the space that is
    free. Unit: GB. Source: ours."""
    price_per_node_hour: float = Field(0.0, ge=0)
    """Price of one machine for one hour, in any currency. When it is set, the progress line shows the cost so
    far. Unit: currency per hour. Source: ours."""
    scratch: Address | None = None
    """Folder for temporary files on every machine, such as models that are copied there, and checkpoints
    before they are uploaded; it is made where it is missing. An absolute path; null: the system's temporary
    folder. Ray's own files, and what it spills, lie where `ray start --temp-dir` says. Source: ours."""
    max_failures: int = Field(2, ge=0)
    """How often a training stage restarts from its last checkpoint after a worker failed on a machine that is
    still there. Unit: restarts. Source: ours."""
    max_preemptions: int | None = Field(None, ge=0)
    """How often a training stage goes on from its last checkpoint after a machine was taken away, as spot
    machines are. None sets no limit. A stage that is preempted five times without a new checkpoint ends in
    any case. Unit: restarts. Source: ours."""
    wait_for_lease_s: float = Field(0.0, ge=0)
    """How long a job waits for another driver of the same run to end, such as the one that an operator is
    just replacing. The jobs' option --wait-for-lease sets it. Unit: seconds. Source: ours."""
    parallel_steps: int = Field(4, ge=1)
    """Largest number of steps that run side by side. A step starts beside others only if the cluster has room
    for all of them. Unit: steps. Source: ours."""
    pools: PoolsConfig = PoolsConfig()
    """Which machines do which part of the run."""

    @model_validator(mode="after")
    def _pools_fit(self) -> "ResourceConfig":
        check_pool_settings(self)
        return self

    @property
    def most_workers(self) -> int:
        """Workers of a stage at most."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def least_workers(self) -> int:
        """Workers of a stage at least."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @field_validator("scratch")
    @classmethod
    def _is_absolute(cls, folder: str | None) -> str | None:
        if folder is not None and not Path(folder).is_absolute():
            raise ValueError(f"expected an absolute path of every machine, got {folder!r}")
        return folder


class Config(Settings):
    """A whole run of the feedback loop."""

    run: Address = "runs/feedback"
    """Run folder: a local path or `s3://bucket/prefix`. Source: ours."""
    tracking: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where training metrics go beside `records/metrics.jsonl` of each stage. `wandb` and `mlflow` need their
    package on every machine that trains. Their own environment variables say where a server is, such as
    WANDB_API_KEY and MLFLOW_TRACKING_URI; without these they write files into the stage's `records`. Source:
    ours."""
    seed: int = 0
    """Seed of everything random except the data set. Unit: none. Source: ours."""
    data: DataConfig = DataConfig()
    encoder: EncoderConfig = EncoderConfig()
    fusion: FusionConfig = FusionConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    losses: LossConfig = LossConfig()
    stage1: TrainConfig = TrainConfig()
    stage2: TrainConfig = TrainConfig()
    emotion_space: EmotionSpaceConfig = EmotionSpaceConfig()
    scorers: ScorerConfig = ScorerConfig()
    generation: GenerationConfig = GenerationConfig()
    filter: FilterConfig = FilterConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourceConfig = ResourceConfig()

    def for_round(self, round_: int) -> "Config":
        """The settings of one round, counted from 1: its own numbers of epochs and images, and no other's."""
        stages = {name: getattr(self, name) for name in ("stage1", "stage2")}
        epochs = {
            name: stage.later_epochs if round_ > 1 and stage.later_epochs else stage.epochs
            for name, stage in stages.items()
        }
        changed: dict[str, Settings] = {
            name: stage.model_copy(update={"epochs": epochs[name], "later_epochs": None})
            for name, stage in stages.items()
        }
        feedback = self.feedback
        if feedback.later_real_images is not None:
            count = feedback.later_real_images if round_ > 1 else feedback.real_images
            changed["feedback"] = feedback.model_copy(
                update={"real_images": count, "later_real_images": None}
            )
        return self.model_copy(update=changed)

    @model_validator(mode="after")
    def _batches_split(self) -> "Config":
        for name in ("stage1", "stage2"):
            stage, workers = getattr(self, name), self.resources.most_workers
            if (stage.micro_batch or 1) * workers > stage.batch_size:
                raise ValueError(
                    f"{name}.batch_size {stage.batch_size} is less than one pass of {stage.micro_batch or 1} "
                    f"images for each of {workers} workers: raise it, or lower "
                    + (f"{name}.micro_batch or " if stage.micro_batch else "")
                    + "resources.workers"
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
