"""Settings of the encoder, the fusion and the losses."""

from typing import Literal

from pydantic import Field, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.settings_base import Settings


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
