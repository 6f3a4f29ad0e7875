"""Settings of the two stages of training."""

from typing import Literal

from pydantic import Field, model_validator

from uniemo_ray.settings_base import Settings


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
