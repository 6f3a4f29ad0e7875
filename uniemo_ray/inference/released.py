"""Released checkpoints as model folders, and model folders as released checkpoints."""

import argparse
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uniemo_ray.config import Config
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.feedback.schema import COEFFICIENTS
from uniemo_ray.foreign_files import stand_in_at
from uniemo_ray.inference.model_folder import TEXT_TOWER, ModelParts, load_model_folder, save_model_folder
from uniemo_ray.models.attributes import AttributeBase, MappedNames
from uniemo_ray.models.build import check_match, empty_net
from uniemo_ray.models.clip import (
    MERGES_FILE,
    ClipParts,
    clip_parts,
    embed_names,
    find_clip_config,
    load_clip,
    make_clip,
)
from uniemo_ray.models.diffusion import load_configured
from uniemo_ray.models.pickled import Allowed, read_pickled
from uniemo_ray.models.pipeline_folder import check_text_widths, text_widths
from uniemo_ray.models.released import (
    CLASSIFIER,
    MAPPERS,
    MODEL,
    Sections,
    from_released,
    plain_names,
    to_released,
)
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.statistics.gaussian_space import GaussianSpace
from uniemo_ray.text import one_line

logger = logging.getLogger(__name__)
STAGE_2_FILE = "VIT_query.pth"
_SCALES = ("logit_scale", "logit_scale_object")
"""Log scales of the scene and the object contrast. Fixed ones become settings of the model."""
_TEXT_PARTS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]  # no public name, and files name it
_BESIDE_TENSORS: tuple[Allowed, ...] = (
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f2", "f4", "f8")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)
"""What stage 1 saves beside tensors: the run's arguments, and an accuracy that may be a numpy number."""
_UNREADABLE = (RuntimeError, EOFError, OSError, LookupError)
CARD = """# UniEmo, imported from a released checkpoint

Understands images. To generate, it lacks an emotion space: a released checkpoint has none, and
jobs/complete_model.py computes it from a data set.
"""


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    fingerprint: str
    """Fingerprint of the model folder."""
    taken: int
    """Tensors of the network that came from the checkpoint."""
    fresh: tuple[str, ...]
    """Parts of the network that the checkpoint does not have."""
    unused: tuple[str, ...]
    """Tensors of the checkpoint that nothing takes."""
    has_diffusion: bool
    match: str
    """`fusion.match` of the model; a checkpoint of stage 1 fuses nothing, and leaves the paper's."""


def read_released(path: Path) -> Sections:
    """The sections of a released checkpoint: one file of stage 1, or the folder that stage 2 writes.

    All else in the files (arguments, epoch, states of optimizer and schedule) is left out.

    Raises:
        ValueError: one line, for what is no whole checkpoint, or holds objects that are not allowed.
    """
    if not path.is_dir():
        content = _load(path)
        lacking = [name for name in (MODEL, CLASSIFIER) if not _is_state(content.get(name))]
        if lacking:
            raise ValueError(
                f"{path} has no {lacking[0]!r}: expected a released checkpoint, a dictionary of "
                f"{MODEL!r} and {CLASSIFIER!r}, got {', '.join(sorted(map(str, content)))[:200] or 'nothing'}"
            )
        return {name: plain_names(name, content[name]) for name in (MODEL, CLASSIFIER)}
    if any(path.glob("**/mp_rank_*_model_states.pt")):
        raise ValueError(
            f"{path} is a checkpoint of DeepSpeed: give a run's folder `model` to other commands"
        )
    sections = read_released(path / STAGE_2_FILE)
    for name in MAPPERS.values():
        content = _load(path / f"{name}.pth")
        if not _is_state(content):
            raise ValueError(f"{path / name}.pth holds no tensors by name: expected the state of a mapper")
        sections[name] = plain_names(name, content)
    return sections


def write_released(sections: Sections, path: Path) -> None:
    """Write sections as stage 1 does (a path that ends in .pth) or as stage 2 does (a folder)."""
    understanding = {name: sections[name] for name in (MODEL, CLASSIFIER)}
    if path.suffix == ".pth":
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(understanding, path)
        return
    path.mkdir(parents=True, exist_ok=True)
    torch.save(understanding, path / STAGE_2_FILE)
    for name in MAPPERS.values():
        torch.save(sections[name], path / f"{name}.pth")


def import_checkpoint(
    path: Path,
    config: Config,
    target: str,
    *,
    names: AttributeNames | None = None,
    with_diffusion: bool = True,
) -> ImportReport:
    """Write a model folder that computes what the released code does with this checkpoint.

    Args:
        path: see `read_released`.
        config: a `*_released` preset; only architecture and names of CLIP are used, not its weights. Of a
            stage-2 checkpoint `fusion.match` decides how its queries find their attributes. Pictures are
            prepared as the released code does in the checkpoint's stage, whatever `encoder.preprocess` says.
        target: model folder, a local path or `s3://`.
        names: attribute base; without, scenes and objects are not named.
        with_diffusion: copy the diffusion model in; a checkpoint without mappers never takes it.

    Raises:
        ValueError: one line, when the checkpoint is damaged or does not fit, or the diffusion model is
            missing.
    """
    names = names or AttributeNames()
    sections = read_released(path)
    is_stage_1 = MAPPERS["cls"] not in sections
    has_diffusion = with_diffusion and not is_stage_1
    config = _with_temperatures(_of_stage(config, 1 if is_stage_1 else 2), sections[MODEL], str(path))
    clip_config, clip_folder = find_clip_config(config.encoder.clip, pretrained=_tag(config))
    net = _skeleton(config, clip_config, names)
    tower = make_clip(_without_image_tower(clip_config["model_cfg"]))
    text = {key: value.shape for key, value in tower.state_dict().items() if key.startswith(_TEXT_PARTS)}
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    ours = from_released(sections, net=shapes, text=text, source=str(path))
    joint_width = clip_config["model_cfg"]["embed_dim"]
    check_match(config.fusion, joint_width=joint_width, text_width=text_widths(config.diffusion))
    if has_diffusion:
        check_text_widths(config.diffusion)
    tower.load_state_dict(ours.text, strict=False)
    merges = clip_folder / MERGES_FILE if clip_folder else None
    merges = merges if merges and merges.is_file() else None
    _embed(net, clip_parts(tower, clip_config, merges))
    fresh = _fill(net, ours.net, seed=config.seed)
    with TemporaryDirectory() as scratch:
        save_file(ours.text, Path(scratch) / TEXT_TOWER)
        parts = ModelParts(
            config=config,
            clip_config=clip_config,
            merges=merges.read_bytes() if merges else None,
            net=net,
            diffusion=load_configured(config.diffusion) if has_diffusion else None,
            space=GaussianSpace.empty(net.fusion.members, net.encoder.width),
            coefficients=pa.Table.from_pylist([], schema=COEFFICIENTS),
            card=CARD,
            text_tower=Path(scratch) / TEXT_TOWER,
            is_stage_1=is_stage_1,
        )
        fingerprint = save_model_folder(parts, target)
    match = config.fusion.match
    taken = () if config.losses.learn_temperature else tuple(f"{MODEL}[{key}]" for key in _SCALES)
    unused = tuple(name for name in ours.unused if name not in taken)
    return ImportReport(fingerprint, len(ours.net), fresh, unused, has_diffusion, match)


def export_checkpoint(model: str, path: Path) -> None:
    """Write a model folder as a released checkpoint, see `write_released`.

    The text tower comes from the folder, if it was imported, otherwise from its `encoder.clip`: it never
    trains.

    Raises:
        ValueError: for a model that the released code cannot compute, or without CLIP's weights.
    """
    if path.exists():
        raise ValueError(f"{path} is there already: choose another path")
    parts = load_model_folder(model)
    if parts.is_stage_1 and path.suffix != ".pth":
        raise ValueError(
            f"{model} was trained in stage 1 alone, so its mappers are random numbers: a folder would hand "
            f"them out as trained, give --out a .pth file"
        )
    if parts.text_tower is not None:
        text = load_file(parts.text_tower)
    else:
        encoder = parts.config.encoder
        whole = load_clip(encoder.clip, pretrained=encoder.clip_pretrained).model.state_dict()
        text = {key: value for key, value in whole.items() if key.startswith(_TEXT_PARTS)}
    sections = to_released(parts.net, text)
    if parts.net.mapped is None and path.suffix != ".pth":
        raise ValueError(
            f"{model} finds attributes by fusion.match 'projected', the released code by 'mapped': it would "
            f"weigh other scenes and objects, give --out a .pth file for the understanding alone"
        )
    write_released(sections, path)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a released checkpoint (.pth)")
    if found := stand_in_at(path):
        raise ValueError(f"{path} is {found}")
    try:
        content = read_pickled(path, allowed=_BESIDE_TENSORS)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds more than a checkpoint needs ({one_line(error)[:300]}): nothing of "
            f"it is loaded, save tensors and plain values alone"
        ) from None
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is damaged ({one_line(error)[:300]}): copy or download the file again"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a dictionary")
    return content


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _tag(config: Config) -> str | None:
    """What names the weights' kind: the tag decides activation and normalisation."""
    clip = config.encoder.clip
    return None if "://" in clip or Path(clip).is_dir() else config.encoder.clip_pretrained


def _of_stage(config: Config, stage: Literal[1, 2]) -> Config:
    """The settings of a model from this stage: it sees pictures as that stage's code shows them.

    What stage 1 has not trained is left as the paper says.
    """
    encoder = config.encoder.model_copy(update={"preprocess": "imagenet" if stage == 1 else "half"})
    papers = {"match": "projected", "condition_head": "own"} if stage == 1 else {}
    fusion = config.fusion.model_copy(update=papers)
    return config.model_copy(update={"encoder": encoder, "fusion": fusion})


def _with_temperatures(config: Config, state: Mapping[str, Tensor], source: str) -> Config:
    """The settings with the checkpoint's own fixed temperatures, so that an export gives them back.

    Raises:
        ValueError: a scale that is no temperature.
    """
    if config.losses.learn_temperature:
        return config
    found = {}
    for setting, key in zip(("scene_temperature", "temperature"), _SCALES, strict=True):
        if key in state:
            temperature = float(torch.exp(-state[key].double()).item())
            if not math.isfinite(temperature) or temperature <= 0:
                raise ValueError(
                    f"{source}: {MODEL}[{key}] is {state[key].item():g}, which is no temperature"
                )
            found[setting] = temperature
    return config.model_copy(update={"losses": config.losses.model_copy(update=found)})


def _skeleton(config: Config, clip_config: dict[str, Any], names: AttributeNames) -> UniEmoNet:
    """The network without memory behind its parameters."""
    with torch.device("meta"):
        return empty_net(
            config,
            clip_config=clip_config["model_cfg"],
            scene_names=names.scenes,
            object_names=names.objects,
            text_width=text_widths(config.diffusion),
        )


def _without_image_tower(model_config: dict[str, Any]) -> dict[str, Any]:
    """The settings of CLIP with this text tower and the smallest possible image tower."""
    least = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 32, "image_size": 32}
    return model_config | {"vision_cfg": least}


def _embed(net: UniEmoNet, clip: ClipParts) -> None:
    """Give the network its attribute bases, embedded by the checkpoint's own text tower."""
    net.scenes = AttributeBase(net.scenes.names, embed_names(clip, net.scenes.names))
    net.objects = AttributeBase(net.objects.names, embed_names(clip, net.objects.names))
    if net.mapped is not None:
        verbatim = embed_names(clip, net.mapped.names, is_verbatim=True)
        net.mapped = MappedNames(net.scenes, net.objects, verbatim)


def _fill(net: UniEmoNet, taken: dict[str, Tensor], *, seed: int) -> tuple[str, ...]:
    """Give every parameter its values; returns the parts that no checkpoint has, which start afresh."""
    state = dict(taken) | {"fusion.offset": torch.zeros_like(net.fusion.offset, device="cpu")}
    state["fusion.scale"] = torch.ones_like(net.fusion.scale, device="cpu")
    net.load_state_dict(state, strict=False, assign=True)
    fresh = {name.split(".")[0]: None for name, tensor in net.named_parameters() if tensor.is_meta}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the same file twice is the same model
        for module in net.modules():
            if isinstance(module, nn.Linear) and module.weight.is_meta:
                module.to_empty(device="cpu").reset_parameters()
    return tuple(fresh)
