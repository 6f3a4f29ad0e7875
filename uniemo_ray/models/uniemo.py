"""The assembled network: encoder, heads, attribute bases and fusion."""

# B batch, C emotions, D encoder width, E joint embedding width, T text-embedding width

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.config import LearningRates, LossConfig
from uniemo_ray.models.attributes import AttributeBase, MappedNames
from uniemo_ray.models.encoder import ExpertQueryEncoder, Features
from uniemo_ray.models.fusion import ConditionFusion
from uniemo_ray.models.heads import Temperature, make_classifier
from uniemo_ray.models.random_start import given_or_drawn, own_stream

PARTS = ("tower", "queries", "heads", "fusion")
STAGE_2_PARTS = ("fusion.", "condition_head.", "mapped.")
"""How names of tensors begin that a network without `Generation` does not have."""


class Understanding(NamedTuple):
    """What the understanding chain says about a batch."""

    features: Features
    logits: Tensor
    """(B, C)."""
    scene_embedding: Tensor | None
    """(B, E) L2-normalised, comparable to names; None without queries."""
    object_embedding: Tensor | None
    """(B, E) L2-normalised, comparable to names; None without queries."""


class Condition(NamedTuple):
    """The fused condition and the attributes behind it."""

    vector: Tensor
    """(B, T), c of eq. 6."""
    scene_index: Tensor | None
    """(B,) index into `UniEmoNet.choices("scene")`, -1 when that is empty; None without queries."""
    object_index: Tensor | None
    """(B,) index into `UniEmoNet.choices("object")`, -1 when that is empty; None without queries."""
    scene_weight: Tensor
    """(B,) alpha; 1 with use_coefficients off; 0 without queries."""
    object_weight: Tensor
    """(B,) alpha; 1 with use_coefficients off; 0 without queries."""


class Temperatures(NamedTuple):
    """InfoNCE temperatures (eq. 4), numbers or learnable tensors of shape (1,)."""

    scene: Tensor | float
    object: Tensor | float


class Generation(NamedTuple):
    """What stage 2 adds to a network that understands."""

    fusion: ConditionFusion
    mapped: MappedNames | None
    """With it, mapped queries find their attributes, not projected ones."""
    use_coefficients: bool
    has_own_head: bool
    """Whether a head of its own reads the emotion from a condition, not the classifier's last layer."""


class UniEmoNet(nn.Module):
    """Everything of UniEmo that trains, except a denoiser that is not frozen.

    Without the parts of stage 2 (`Generation`) it understands and makes no conditions.
    """

    fusion: ConditionFusion
    condition_head: nn.Linear

    def __init__(
        self,
        encoder: ExpertQueryEncoder,
        *,
        scenes: AttributeBase,
        objects: AttributeBase,
        losses: LossConfig,
        generation: Generation | None,
        seed: int | None = None,
    ) -> None:
        """Assemble the parts; `seed` is that of fresh weights, None draws one from torch's own stream.

        Raises:
            ValueError: the classifier's last layer shall read conditions of another width.
        """
        super().__init__()
        seed = given_or_drawn(seed)
        width = encoder.width
        classes, joint_width = scenes.coefficients.shape[1], scenes.embeddings.shape[1]
        self.encoder = encoder
        self.scenes = scenes
        self.objects = objects
        scene_temperature = losses.scene_temperature or losses.temperature
        self._fixed_temperatures = Temperatures(scene_temperature, losses.temperature)
        self.has_fixed_projections = losses.projections == "random"
        with own_stream(seed, "classifier"):
            self.classifier = make_classifier(width, classes)
        if self.has_queries:
            self.scene_projection = self._projection("scene", joint_width, seed)
            self.object_projection = self._projection("object", joint_width, seed)
        if self.has_queries and losses.learn_temperature:
            self.scene_temperature = Temperature(scene_temperature)
            self.object_temperature = Temperature(losses.temperature)
        self.mapped: MappedNames | None = None
        if generation is not None:
            self._add_generation(generation, seed)

    def _projection(self, kind: str, joint_width: int, seed: int) -> nn.Linear:
        with own_stream(seed, f"{kind}_projection"):
            projection = nn.Linear(self.encoder.width, joint_width, bias=False)
            if self.has_fixed_projections:
                nn.init.normal_(projection.weight)
        return projection

    def _add_generation(self, generation: Generation, seed: int) -> None:
        self.fusion = generation.fusion
        self.mapped = generation.mapped
        self.use_coefficients = generation.use_coefficients
        last = self.classifier[-1]
        assert isinstance(last, nn.Linear)
        text_width = len(self.fusion.offset)
        if generation.has_own_head:
            with own_stream(seed, "condition_head"):
                self.condition_head = nn.Linear(text_width, last.out_features)
        elif text_width != last.in_features:
            raise ValueError(
                f"fusion.condition_head is 'classifier', whose last layer reads {last.in_features} values, "
                f"but conditions have {text_width}: set fusion.condition_head to own"
            )

    @property
    def has_queries(self) -> bool:
        """Whether the encoder has expert queries."""
        return self.encoder.config.queries != "none"

    def forward(self, pixels: Tensor) -> Understanding:
        """Same as `understand`."""
        return self.understand(pixels)

    def understand(self, pixels: Tensor) -> Understanding:
        """Emotion logits and attribute embeddings of normalised pixels (B, 3, H, W)."""
        features: Features = self.encoder(pixels)
        return Understanding(
            features=features,
            logits=self.classifier(features.cls),
            scene_embedding=self._embed_scene(features),
            object_embedding=self._embed_object(features),
        )

    def condition(self, features: Features, emotion: Tensor) -> Condition:
        """Fuse features at an emotion (eq. 6).

        Args:
            features: from `understand`, or drawn from the emotion space.
            emotion: (B,) int64, the true label in training and the wanted emotion in generation.
        """
        scene_index, scene_weight = self._weigh("scene", features, emotion)
        object_index, object_weight = self._weigh("object", features, emotion)
        vector = self.fusion(features, scene_weight=scene_weight, object_weight=object_weight)
        return Condition(vector, scene_index, object_index, scene_weight, object_weight)

    def condition_logits(self, vector: Tensor) -> Tensor:
        """The emotion that a condition (B, T) tells, as logits (B, C)."""
        head = self.condition_head if hasattr(self, "condition_head") else self.classifier[-1]
        logits: Tensor = head(vector)
        return logits

    def choices(self, kind: Literal["scene", "object"]) -> tuple[str, ...]:
        """Names that a query of this kind is matched with."""
        return self._base(kind).names

    def temperatures(self) -> Temperatures:
        """Temperatures of the two contrastive terms (eq. 4)."""
        if hasattr(self, "scene_temperature"):
            return Temperatures(self.scene_temperature(), self.object_temperature())
        return self._fixed_temperatures

    def _embed_scene(self, features: Features) -> Tensor | None:
        return None if features.scene is None else F.normalize(self.scene_projection(features.scene), dim=-1)

    def _embed_object(self, features: Features) -> Tensor | None:
        return (
            None if features.object is None else F.normalize(self.object_projection(features.object), dim=-1)
        )

    def _base(self, kind: Literal["scene", "object"]) -> AttributeBase | MappedNames:
        return self.mapped or (self.scenes if kind == "scene" else self.objects)

    def _query(self, kind: Literal["scene", "object"], features: Features) -> Tensor | None:
        """What is compared with the names: (B, E) projected or (B, T) mapped; None without such a query."""
        if self.mapped is None:
            return self._embed_scene(features) if kind == "scene" else self._embed_object(features)
        feature: Tensor | None = getattr(features, kind)
        if feature is None or kind not in self.fusion.members:
            return None
        return self.fusion.mapped(kind, feature)

    def _weigh(
        self, kind: Literal["scene", "object"], features: Features, emotion: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        nothing = torch.zeros(emotion.shape, device=emotion.device)
        query, base = self._query(kind, features), self._base(kind)
        if query is None:
            return None, nothing
        index = base.find(query)
        return index, base.weight(index, emotion) if self.use_coefficients else nothing + 1


def set_trainable(
    net: UniEmoNet, *, stage: Literal[1, 2], tower: Literal["train", "frozen"], joint_training: bool = True
) -> None:
    """Choose by `requires_grad` what a stage trains.

    Stage 1: tower (unless frozen), queries and classifier. Stage 2: these and the fusion with its
    condition head; without joint training (figure 8) only the latter two.
    """
    understands = stage == 1 or joint_training
    net.encoder.requires_grad_(understands)
    net.encoder.visual.requires_grad_(understands and tower == "train")
    net.encoder.visual.proj.requires_grad_(False)
    for name, module in net.named_children():
        if name in ("fusion", "condition_head"):
            module.requires_grad_(stage == 2)
        elif name.endswith("_projection"):
            module.requires_grad_(understands and not net.has_fixed_projections)
        elif name != "encoder":
            module.requires_grad_(understands)


def freeze_parts(net: UniEmoNet, rates: LearningRates) -> None:
    """Freeze every part whose learning rate is 0, so that it has no gradients and no optimizer state."""
    for name, parameter in net.named_parameters():
        if getattr(rates, part_of(name)) == 0:
            parameter.requires_grad_(False)


def understanding_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a network's state, what stage 1 trains and uses: all but the parts of `Generation`."""
    return {name: value for name, value in state.items() if not name.startswith(STAGE_2_PARTS)}


def part_of(name: str) -> str:
    """The part (one of `PARTS`) that a parameter of `UniEmoNet` belongs to, by its name."""
    if name.startswith("encoder.visual."):
        return "tower"
    if name.startswith("fusion."):
        return "fusion"
    return "heads" if name.startswith(("classifier.", "condition_head.")) else "queries"


def parameter_groups(
    net: UniEmoNet, rates: LearningRates, weight_decay: float, *, tower_weight_decay: float | None = None
) -> list[dict[str, object]]:
    """AdamW groups of what requires a gradient, two per part of `PARTS` (see `decay_groups`).

    The tower's decay may be one of its own.
    """
    groups: list[dict[str, object]] = []
    for part in PARTS:
        decay = tower_weight_decay if tower_weight_decay is not None and part == "tower" else weight_decay
        named = [p for name, p in net.named_parameters() if p.requires_grad and part_of(name) == part]
        groups += decay_groups(part, named, rate=getattr(rates, part), weight_decay=decay)
    return groups


def decay_groups(
    name: str, parameters: Sequence[nn.Parameter], *, rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """AdamW groups of one part: with decay, and 1-D parameters (biases, norms) without.

    Each holds `name`, `params`, `lr` and `weight_decay`; empty groups are left out.
    """
    split = (
        ([p for p in parameters if p.ndim > 1], weight_decay),
        ([p for p in parameters if p.ndim < 2], 0.0),
    )
    return [
        {"name": name, "params": params, "lr": rate, "weight_decay": decay}
        for params, decay in split
        if params
    ]
