"""The model folder: everything that understanding and generation need, in open formats, with checksums.

config.json                 format, version, names, settings that decide what the model gives
training.json               settings that the weights came from
model.safetensors           UniEmoNet
clip/                       architecture and vocabulary of the image tower, of an import the text tower too
diffusion/                  a diffusers pipeline folder; absent in a model that only understands
emotion_space.safetensors   section 4
coefficients.parquet        section 2
scorers.safetensors         section-2 classifier and name heads
README.md                   model card
checksums.json              SHA-256 of all of these

A compact one (`uniemo_ray.inference.compact`) has no clip/ and diffusion/ of its own; `tiny` is one that is
shipped with the package.
"""

import json
import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from uniemo_ray.config import Config, DiffusionConfig
from uniemo_ray.emotions import LABEL_SPACES, MIKELS, LabelSpace
from uniemo_ray.inference.checksums import (
    CHECKSUMS,
    CONFIG,
    DIFFUSION,
    FORMAT,
    TRAINING,
    VALENCES,
    VERSION,
    base_of,
    check_replaceable,
    read_config,
    stated_files,
    write_checksums,
)
from uniemo_ray.inference.compact import NET, from_eight_bits
from uniemo_ray.inference.heads import ScorerHeads
from uniemo_ray.inference.model_cache import CachedFolder
from uniemo_ray.inference.model_settings import output_settings, read_settings, training_settings
from uniemo_ray.inference.model_source import fetch_folder, read_labels
from uniemo_ray.models.build import empty_net
from uniemo_ray.models.clip import CONFIG_FILE, MERGES_FILE, read_clip_config
from uniemo_ray.models.pipeline_folder import PipelineFolder, find_pipeline
from uniemo_ray.models.speed import tune_diffusion
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.statistics.load_space import load_space
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.text import one_line

if TYPE_CHECKING:
    from uniemo_ray.inference.painter import Painter
    from uniemo_ray.models.diffusion import DiffusionParts

TEXT_TOWER = "text_tower.safetensors"
SPACE, SCORERS = "emotion_space.safetensors", "scorers.safetensors"
NO_DIFFUSION = "holds no diffusion model: it understands images and makes none"
COEFFICIENTS, CARD = "coefficients.parquet", "README.md"
_STAGE = "stage"
Dtype = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A trained model in memory."""

    config: Config
    """Only the settings of `model_settings` mean something; the rest are defaults."""
    clip_config: dict[str, Any]
    """Content of open_clip_config.json."""
    merges: bytes | None
    """BPE merges, when the vocabulary is not open_clip's own."""
    net: UniEmoNet
    diffusion: "DiffusionParts | None"
    """None in a model that only understands, and where it was not loaded."""
    space: EmotionSpace
    coefficients: pa.Table
    """Rows of `coefficients_schema`."""
    pipeline: PipelineFolder | None = None
    """Files that are copied where `diffusion` was not loaded: it takes gigabytes."""
    scorers: ScorerHeads | None = None
    card: str = ""
    """README.md."""
    text_tower: Path | None = None
    """File with CLIP's text tower, when it came with an imported checkpoint."""
    labels: LabelSpace = MIKELS
    """The classes that it tells apart."""
    is_stage_1: bool = False
    """Whether stage 1 alone has trained: what conditions a diffusion model is still random numbers."""
    fingerprint: str = ""
    """Fingerprint of the folder that the parts were loaded from."""
    hold: CachedFolder | None = None
    """Keeps the copy of a folder in storage as long as its parts."""
    left_out: str | None = None
    """Address of the model folder whose diffusion model was not copied to this machine, and is when the parts
    are saved."""


def save_model_folder(parts: ModelParts, target: str | Path) -> str:
    """Write a model folder in one step; returns its fingerprint. An older model there is replaced.

    Args:
        parts: what to write.
        target: local path or `s3://`.

    Raises:
        ValueError: when `target` holds something that is no model folder.
    """
    store = open_store(str(target))
    final = store.local_path_or_none()
    check_replaceable(store)
    parent = final.parent if final else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=parent) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        fingerprint = _write(parts, folder)
        if final:
            _swap(folder, final)
        else:
            _upload(folder, store)
    return fingerprint


def _upload(folder: Path, store: Store) -> None:
    # The checksums first: what a crash leaves is then known as part of a model, and never loads as one.
    store.put_file(folder / CHECKSUMS, CHECKSUMS)
    written = store.upload_dir(folder)
    for key in set(store.list()) - set(written):
        store.delete(key)


def load_model_folder(
    source: str | Path, *, with_diffusion: bool = True, dtype: Dtype | None = None
) -> ModelParts:
    """Read a model folder after checking version, completeness and every checksum.

    Args:
        source: local path, `s3://`, or `tiny` for the one that comes with the package.
        with_diffusion: whether to load what only generation needs.
        dtype: number format of denoiser and text encoders; by default as the folder says.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    folder, fingerprint, hold = fetch_folder(source, with_diffusion=with_diffusion)
    config_file, base = read_config(folder), base_of(folder)
    labels, config = read_labels(folder), read_settings(folder, config_file)
    pipeline = _find_diffusion(base / DIFFUSION, config)
    tuning = (
        config.diffusion if dtype is None else config.diffusion.model_copy(update={"frozen_dtype": dtype})
    )
    diffusion = _load_diffusion(pipeline, tuning) if pipeline and with_diffusion else None
    clip_config = read_clip_config(base / "clip")
    net = empty_net(
        config,
        clip_config=clip_config["model_cfg"],
        scene_names=config_file["names"]["scene"],
        object_names=config_file["names"]["object"],
        text_width=_condition_width(folder / NET),
        classes=len(labels.labels),
    )
    if diffusion and diffusion.text_width != len(net.fusion.offset):
        raise ValueError(
            f"{folder / NET} makes conditions of width {len(net.fusion.offset)}, the text encoders in "
            f"{base / 'diffusion'} have {diffusion.text_width}: save the model again"
        )
    merges, text_tower = base / "clip" / MERGES_FILE, base / "clip" / TEXT_TOWER
    return ModelParts(
        config=config,
        clip_config=clip_config,
        merges=merges.read_bytes() if merges.is_file() else None,
        net=_load_weights(net, folder / NET),
        diffusion=diffusion,
        pipeline=pipeline,
        space=load_space(folder / SPACE, labels.labels),
        coefficients=pq.read_table(_present(folder / COEFFICIENTS)),
        scorers=ScorerHeads.load(folder / SCORERS) if (folder / SCORERS).is_file() else None,
        card=(folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else "",
        text_tower=text_tower if text_tower.is_file() else None,
        labels=labels,
        is_stage_1=config_file.get(_STAGE) == 1,
        fingerprint=fingerprint,
        hold=hold,
        left_out=_left_out(folder, str(source)) if pipeline is None else None,
    )


def load_painter(
    source: str | Path, *, device: str = "cpu", dtype: Dtype | None = None
) -> "tuple[Painter, str]":
    """The part of a model folder that makes images, and the folder's fingerprint.

    Args:
        source: as in `load_model_folder`, also `dtype`.
        device: torch device.
        dtype: number format.

    Raises:
        ValueError: as `load_model_folder`, and for a model that only understands.
    """
    from uniemo_ray.inference.painter import Painter

    parts = load_model_folder(source, dtype=dtype)
    if parts.diffusion is None:
        raise ValueError(f"{source} {NO_DIFFUSION}")
    return Painter(parts.diffusion, net=parts.net, space=parts.space, device=device), parts.fingerprint


def _write(parts: ModelParts, folder: Path) -> str:
    names = {"scene": parts.net.scenes.names, "object": parts.net.objects.names}
    labels = parts.labels.labels
    header = {"format": FORMAT, "version": VERSION, "emotions": labels, "names": names}
    header["config"] = output_settings(parts.config)
    if parts.labels not in LABEL_SPACES.values():
        header[VALENCES] = parts.labels.valences
    if parts.is_stage_1:
        header[_STAGE] = 1
    (folder / CONFIG).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    (folder / TRAINING).write_text(
        json.dumps(training_settings(parts.config), indent=1) + "\n", encoding="utf-8"
    )
    state = {key: value.cpu().contiguous() for key, value in parts.net.state_dict().items()}
    save_file(state, folder / NET)
    (folder / "clip").mkdir()
    (folder / "clip" / CONFIG_FILE).write_text(
        json.dumps(parts.clip_config, indent=1) + "\n", encoding="utf-8"
    )
    if parts.merges is not None:
        (folder / "clip" / MERGES_FILE).write_bytes(parts.merges)
    if parts.text_tower is not None:
        shutil.copyfile(parts.text_tower, folder / "clip" / TEXT_TOWER)
    if parts.diffusion is not None:
        _write_diffusion(parts.diffusion, folder / DIFFUSION, mode=parts.config.diffusion.denoiser)
    elif parts.pipeline is not None:
        parts.pipeline.copy_to(folder / DIFFUSION)
    elif parts.left_out is not None:
        open_store(parts.left_out).download_dir(DIFFUSION, folder / DIFFUSION)
    parts.space.save(folder / SPACE)
    pq.write_table(parts.coefficients, folder / COEFFICIENTS)
    if parts.scorers is not None:
        parts.scorers.save(folder / SCORERS)
    (folder / CARD).write_text(parts.card, encoding="utf-8")
    return write_checksums(folder)


def _write_diffusion(diffusion: "DiffusionParts", target: Path, *, mode: str) -> None:
    """The pipeline's files as they came, unless its denoiser was trained."""
    if mode == "frozen" and diffusion.folder is not None:
        diffusion.folder.copy_to(target)
        return
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    denoiser = diffusion.denoiser
    if mode == "lora" and getattr(denoiser, "peft_config", None):
        denoiser = deepcopy(denoiser)  # merging changes weights, and training may go on
        denoiser.fuse_lora()
        denoiser.unload_lora()
    shared: Any = {
        "vae": diffusion.vae,
        "text_encoder": diffusion.text_encoder,
        "tokenizer": diffusion.tokenizer,
        "unet": denoiser,
        "scheduler": diffusion.schedule,
        "feature_extractor": None,
    }
    pipeline: Any
    if diffusion.is_xl:
        pipeline = StableDiffusionXLPipeline(
            **shared,
            text_encoder_2=diffusion.text_encoder_2,
            tokenizer_2=diffusion.tokenizer_2,
            force_zeros_for_empty_prompt=diffusion.is_empty_zero,
            add_watermarker=False,
        )
    else:
        pipeline = StableDiffusionPipeline(**shared, safety_checker=None, requires_safety_checker=False)
    pipeline.save_pretrained(target)


def _left_out(folder: Path, source: str) -> str | None:
    """The source, if it has a diffusion model which the folder has not."""
    has_one = any(name.startswith(f"{DIFFUSION}/") for name in stated_files(folder)[0])
    return source if has_one and base_of(folder) == folder else None


def _find_diffusion(folder: Path, config: Config) -> PipelineFolder | None:
    if not folder.is_dir():
        return None
    # a trained denoiser was saved anew, and so under the plain name
    variant = config.diffusion.variant if config.diffusion.denoiser == "frozen" else None
    return find_pipeline(str(folder), variant=variant)


def _load_diffusion(pipeline: PipelineFolder, tuning: DiffusionConfig) -> "DiffusionParts":
    from uniemo_ray.models.diffusion import load_diffusion  # imports diffusers: understanding does without

    return tune_diffusion(load_diffusion(str(pipeline.path), variant=pipeline.variant), tuning)


def _condition_width(path: Path) -> int:
    """T of the saved network, from the header of its weight file."""
    try:
        with safe_open(_present(path), "pt") as file:
            return int(file.get_slice("fusion.offset").get_shape()[0])
    except SafetensorError as error:
        raise ValueError(f"{path} does not fit {CONFIG} ({error}): save the model again") from None


def _swap(folder: Path, final: Path) -> None:
    """Put a finished folder in its place; both lie on one disk, so each rename is one step."""
    old = folder.with_name("old")
    if final.exists():
        final.rename(old)
    folder.rename(final)


def _load_weights(net: UniEmoNet, path: Path) -> UniEmoNet:
    try:
        net.load_state_dict(from_eight_bits(load_file(_present(path))))
    except (RuntimeError, SafetensorError) as error:
        reason = one_line(error)
        raise ValueError(f"{path} does not fit {CONFIG} ({reason}): save the model again") from None
    return net.eval()


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing from the model folder: copy or download the folder again")
    return path
