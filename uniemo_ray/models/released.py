"""The released code's checkpoint (JiuTian-VL/UniEmo): its tensors as ours, and ours as its.

Both sides are dictionaries of tensors in sections: `model` and `Emo_classifier` from one file, and of a
stage-2 checkpoint `mapper`, `mapper_scene` and `mapper_object` from a file each.
"""

# D encoder width, E joint embedding width, T text width

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from uniemo_ray.config import EncoderConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.models.pickled import COMPILED
from uniemo_ray.models.uniemo import UniEmoNet

Sections = dict[str, dict[str, Tensor]]
MODEL, CLASSIFIER = "model", "Emo_classifier"
MAPPERS = {"cls": "mapper", "scene": "mapper_scene", "object": "mapper_object"}
_LAYERS = "mlp."
"""A mapper is a module that keeps its layers in an attribute of this name."""
_RANK = "module."
"""What training on several GPUs puts before every name."""
_KINDS = {"scene": ("0", "logit_scale"), "object": ("1", "logit_scale_object")}
"""Number of the interactive block and name of the log scale."""
_OURS_ALONE = ("fusion.offset", "fusion.scale", "scenes.", "objects.", "mapped.", "condition_head.")
_UNUSED = re.compile(r"_last|^input_resolution$|^context_length$|^vocab_size$|query_alpha$|^logit_scale")
"""What a checkpoint may hold beyond what a network takes: leftovers, and parameters of other switches."""
_ALPHA_START = 1e-4
_SWITCHES = {
    "queries": "multi_stage",
    "query_length": 32,
    "stage_layers": None,
    "interactive_layers": 1,
    "interactive_context": "tokens",
    "interactive_residual": "replace",
}


class TensorKey(NamedTuple):
    """Where the released checkpoint keeps one of our tensors."""

    section: str
    key: str

    def __str__(self) -> str:
        return f"{self.section}[{self.key}]"


class Imported(NamedTuple):
    """A released checkpoint in our terms."""

    net: dict[str, Tensor]
    """Tensors of `UniEmoNet`, fp32."""
    text: dict[str, Tensor]
    """CLIP's text tower, fp32."""
    unused: tuple[str, ...]
    """Places of tensors that nothing takes."""


def plain_names(section: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A section under the names that the released classes give on one GPU, not compiled.

    Mappers may also come as their layers alone, without `mlp.` before each name.
    """
    named = {key.replace(COMPILED, ""): value for key, value in state.items()}
    if all(key.startswith(_RANK) for key in named):
        named = {key.removeprefix(_RANK): value for key, value in named.items()}
    if section in MAPPERS.values() and not any(key.startswith(_LAYERS) for key in named):
        named = {f"{_LAYERS}{key}": value for key, value in named.items()}
    return named


def place_of(name: str) -> TensorKey | None:
    """Where the released checkpoint keeps the tensor `name` of `UniEmoNet`; None if it is ours alone.

    Raises:
        ValueError: for a part of the network that the released code does not have.
    """
    if name.startswith(_OURS_ALONE):
        return None
    head, _, rest = name.partition(".")
    if head == "classifier":
        layer, kind = rest.split(".")
        return TensorKey(CLASSIFIER, f"fc{0 if layer == '0' else 1}.{kind}")
    if head == "fusion":
        _, member, parameter = rest.split(".", 2)
        if member not in MAPPERS:
            raise ValueError(
                f"the released code fuses {', '.join(MAPPERS)}, not {member}: change fusion.members"
            )
        return TensorKey(MAPPERS[member], f"{_LAYERS}{parameter}")
    return TensorKey(MODEL, _encoder_key(name) if head == "encoder" else _query_key(name))


def _encoder_key(name: str) -> str:
    name = name.removeprefix("encoder.")
    kind, _, rest = name.partition("_")
    if kind not in _KINDS:
        return name  # visual.*: OpenAI's own names
    if rest == "queries":
        return f"visual.visual_query_{kind}.weight"
    block = f"visual.transformer.visual_query_interact.{_KINDS[kind][0]}"
    if rest == "beta":
        return f"{block}.query_alpha"
    inner = rest.removeprefix("block.").replace("layers.", "query_decoder.")
    return f"{block}.{inner.replace('.norm2.', '.norm3.').replace('.mlp.2.', '.mlp.3.')}"


def _query_key(name: str) -> str:
    kind, _, rest = name.partition("_")
    return f"visual_query_{kind}_proj" if rest == "projection.weight" else _KINDS[kind][1]


def from_released(
    checkpoint: Mapping[str, Mapping[str, Tensor]],
    *,
    net: Mapping[str, torch.Size],
    text: Mapping[str, torch.Size],
    source: str,
) -> Imported:
    """Our tensors from a released checkpoint; every one that the network has must be there.

    Args:
        checkpoint: sections; a network's mappers are fresh where there are none.
        net: shapes of `UniEmoNet`'s state.
        text: shapes of CLIP's text tower, under OpenAI's names.
        source: what to call the checkpoint in errors.

    Raises:
        ValueError: naming the first tensor of another shape with both shapes, or the first one missing or
            unknown.
    """
    wanted = {name: place for name in net if (place := place_of(name)) and place.section in checkpoint}
    shapes = {place: _released_shape(name, net[name]) for name, place in wanted.items()}
    shapes |= {TensorKey(MODEL, name): shape for name, shape in text.items()}
    _check_shapes(checkpoint, shapes, source)
    _check_names(checkpoint, shapes, source)
    tensors = {name: checkpoint[place.section][place.key].float() for name, place in wanted.items()}
    unused = [str(place) for place in _places(checkpoint) if place not in shapes]
    return Imported(
        net={name: _turn(name, tensor).reshape(net[name]) for name, tensor in tensors.items()},
        text={name: checkpoint[MODEL][name].float() for name in text},
        unused=tuple(unused),
    )


def to_released(net: UniEmoNet, text: Mapping[str, Tensor]) -> Sections:
    """A released checkpoint of all sections from our network and CLIP's text tower.

    The released fusion is eq. 6 alone: where ours starts at words, `offset + scale * c`, both go into the
    last layers of the mappers.

    Raises:
        ValueError: for a network that the released code cannot compute.
    """
    check_switches(net.encoder.config)
    *_, last_bias = net.classifier.parameters()
    classes = len(last_bias)
    if classes != len(EMOTIONS):
        raise ValueError(
            f"the released code tells {len(EMOTIONS)} emotions apart, this model {classes} classes: it would "
            f"compute something else"
        )
    if not net.use_coefficients:
        raise ValueError(
            "the released code weighs scene and object by their coefficients, this model has "
            "fusion.use_coefficients false: it would compute something else"
        )
    if set(net.fusion.members) != set(MAPPERS):
        raise ValueError(
            f"the released code fuses {', '.join(MAPPERS)}, this model {', '.join(net.fusion.members)}"
        )
    state = _with_plain_fusion(net.state_dict())
    sections: Sections = {MODEL: dict(text), CLASSIFIER: {}} | {name: {} for name in MAPPERS.values()}
    for name, tensor in state.items():
        if place := place_of(name):
            turned = _turn(name, tensor)
            is_scale = place.key.startswith("logit_scale")
            sections[place.section][place.key] = turned.reshape(()) if is_scale else turned
    temperatures = net.temperatures()
    for kind, (number, scale) in _KINDS.items():
        fixed = -torch.as_tensor(getattr(temperatures, kind)).detach().log().reshape(())
        alpha = f"visual.transformer.visual_query_interact.{number}.query_alpha"
        sections[MODEL].setdefault(alpha, torch.full((net.encoder.width,), _ALPHA_START))
        sections[MODEL].setdefault(scale, fixed)
    return sections


def check_switches(encoder: EncoderConfig) -> None:
    """Raise ValueError unless the released code computes this encoder."""
    for name, released in _SWITCHES.items():
        if getattr(encoder, name) != released:
            raise ValueError(
                f"the released code has encoder.{name} {released!r}, this model {getattr(encoder, name)!r}: "
                "it would compute something else"
            )


def _with_plain_fusion(state: dict[str, Tensor]) -> dict[str, Tensor]:
    offset, scale = state["fusion.offset"], state["fusion.scale"]
    changed = {}
    for member in MAPPERS:
        last = f"fusion.phi.{member}.2"
        changed[f"{last}.weight"] = state[f"{last}.weight"] * scale[:, None]
        bias = state[f"{last}.bias"] * scale
        changed[f"{last}.bias"] = bias + offset if member == "cls" else bias  # cls alone has no weight
    return state | changed


def _is_turned(name: str) -> bool:
    return name in ("scene_projection.weight", "object_projection.weight")


def _turn(name: str, tensor: Tensor) -> Tensor:
    """The other side's form of a tensor; its own inverse."""
    if _is_turned(name):
        return tensor.T.contiguous()  # (E, D) of a linear layer, (D, E) of a plain matrix
    return -tensor if name.endswith("_temperature.log_value") else tensor  # log scale is -log temperature


def _released_shape(name: str, shape: torch.Size) -> torch.Size:
    return torch.Size(reversed(shape)) if _is_turned(name) else shape


def _places(checkpoint: Mapping[str, Mapping[str, Tensor]]) -> list[TensorKey]:
    return [TensorKey(section, key) for section, tensors in checkpoint.items() for key in tensors]


def _check_shapes(
    checkpoint: Mapping[str, Mapping[str, Tensor]], shapes: Mapping[TensorKey, torch.Size], source: str
) -> None:
    for place, shape in shapes.items():
        found = checkpoint[place.section].get(place.key)
        if found is None or found.shape == shape:
            continue
        if place.key.startswith("logit_scale") and found.numel() == 1:
            continue  # a scalar here, a vector of one there
        raise ValueError(
            f"{source} does not fit the preset: {place} has shape {tuple(found.shape)}, "
            f"expected {tuple(shape)}; choose the preset of the checkpoint's own CLIP and diffusion model"
        )


def _check_names(
    checkpoint: Mapping[str, Mapping[str, Tensor]], shapes: Mapping[TensorKey, torch.Size], source: str
) -> None:
    present = _places(checkpoint)
    lacking = sorted(set(shapes) - set(present))
    if lacking:
        raise ValueError(f"{source} does not fit the preset: it lacks {lacking[0]}")
    unknown = [place for place in present if place not in shapes and not _UNUSED.search(place.key)]
    if unknown:
        raise ValueError(f"{source} does not fit the preset: nothing takes its {unknown[0]}")
