"""What is checked before Ray does anything: one clear line now instead of a failure an hour later."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import open_clip
import torch

from uniemo_ray.config import Config, DataConfig, DiffusionConfig, EncoderConfig
from uniemo_ray.data.readers import label_space, open_folder
from uniemo_ray.emotions import OWN
from uniemo_ray.feedback.plan import prompt_for
from uniemo_ray.inference.model_source import describe_model, locate_model
from uniemo_ray.metrics.accuracy import coarsen
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE, EmotionJudge
from uniemo_ray.metrics.inception import INCEPTION_FILE, InceptionFeatures
from uniemo_ray.metrics.perceptual import ALEXNET_FILE, SMALLEST_PX, has_alexnet, load_lpips_alex
from uniemo_ray.metrics.resnet import IMAGENET_FILE, PLACES_FILE, SemanticJudges
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.models.build import check_match, empty_net
from uniemo_ray.models.clip import WEIGHTS_FILE, find_clip_config
from uniemo_ray.models.clip_kinds import check_archive
from uniemo_ray.models.encoder import stage_ends
from uniemo_ray.models.pipeline_folder import TINY_FOLDER as TINY_DIFFUSION
from uniemo_ray.models.pipeline_folder import check_text_widths, text_widths
from uniemo_ray.models.uniemo import freeze_parts, set_trainable

FEWEST_PER_EMOTION = 2
"""Images that a pair needs."""
REBUILD = "python -m tools.tiny.pretrain makes the tiny base models"


def check_inputs(config: Config, *, with_data: bool = True) -> None:
    """Check the data set, base models, network, metrics and published weights.

    Args:
        config: of the run.
        with_data: whether the data folder will be read; it need not be there when all of it was ingested.

    Raises:
        ValueError: one line that names the setting and what is wrong.
    """
    check_trainable(config)
    if with_data:
        check_data(config.data)
    stage_ends(check_clip(config.encoder), config.encoder)
    _check_diffusion(config.diffusion)
    check_network(config, stages=(1, 2))
    check_labels(config)
    check_measurable(config)
    if config.evaluation.weights_dir:
        check_published(config.evaluation.weights_dir)


def check_understanding(config: Config, *, with_data: bool = True) -> None:
    """Check what `jobs/understanding.py` needs: the data set and the model to judge, or CLIP and its layers.

    Args:
        config: of the run.
        with_data: as in `check_inputs`.

    Raises:
        ValueError: one line that names the setting and what is wrong.
    """
    if with_data:
        check_data(config.data)
    if config.evaluation.model is not None:
        own, _ = describe_model(locate_model(config.evaluation.model))
        coarsen(np.zeros((0, len(own.labels))), own, label_space(config.data))
        return
    stage_ends(check_clip(config.encoder), config.encoder)
    text_widths(config.diffusion)
    check_network(config, stages=(1,))


def check_data(data: DataConfig) -> None:
    """Raise FolderError, one line per fault, unless the data folder has the structure that it should."""
    if data.kind != "sketch":
        open_folder(str(data.root), data)


def check_trainable(config: Config) -> None:
    """Raise ValueError for a kind of data set that the whole loop cannot be run on like this."""
    data = config.data
    if config.evaluation.model is not None:
        raise ValueError("evaluation.model is a setting of jobs/understanding.py: the loop judges its own")
    has_attributes = data.kind in ("sketch", "emoset")
    if not has_attributes and config.feedback.rounds and "sem" in config.filter.criteria:
        raise ValueError(
            f"data.kind {data.kind!r} has no scenes and objects, so no image has the semantic score that the "
            f"filter asks for: set filter.criteria=[emo], or feedback.rounds=0"
        )


def check_labels(config: Config) -> None:
    """Raise ValueError for a label of the user's own that is too long for the prompt of reference images."""
    space = label_space(config.data)
    if space.name != OWN:
        return
    from uniemo_ray.models.conditioning import fits
    from uniemo_ray.models.diffusion import load_tokenizers  # seconds of imports

    for tokenizer in load_tokenizers(config.diffusion):
        for label in space.labels:
            prompt = prompt_for(label, kind="plain", diffusion=config.diffusion)
            if not fits(tokenizer, prompt):
                raise ValueError(
                    f"the label {label!r} is too long: with it the prompt {prompt!r} has more than the "
                    f"{tokenizer.model_max_length - 2} tokens that {config.diffusion.model} reads; shorten "
                    f"it, or diffusion.plain_prompt"
                )


def check_published(weights_dir: str) -> None:
    """Load each published network of the folder once, as the metrics will after the trainings.

    Raises:
        ValueError: naming a file that is damaged, missing beside another, or of another version.
    """
    pair = (PLACES_FILE, IMAGENET_FILE)
    for name in (INCEPTION_FILE, ALEXNET_FILE, IMAGENET_FILE):
        others = sorted(path.name for path in Path(weights_dir).glob(f"{name.rpartition('-')[0]}-*.pth"))
        if others and name not in others:
            raise ValueError(
                f"evaluation.weights_dir {weights_dir!r} holds {others[0]}, but the published metric is that "
                f"of {name}: put this file there"
            )
    there = [name for name in pair if has_weights(weights_dir, name)]
    if len(there) == 1:
        lost = pair[1 - pair.index(there[0])]
        raise ValueError(
            f"evaluation.weights_dir {weights_dir!r} holds {there[0]} but no {lost}: Sem-C needs both"
        )
    loaders: dict[str, Callable[[str], object]] = {
        INCEPTION_FILE: InceptionFeatures,
        ALEXNET_FILE: load_lpips_alex,
        IMAGENET_FILE: SemanticJudges,
        JUDGE_FILE: EmotionJudge,
    }
    found = [name for name in loaders if has_weights(weights_dir, name)]
    if not found:
        raise ValueError(
            f"evaluation.weights_dir {weights_dir!r} holds neither {INCEPTION_FILE} nor {ALEXNET_FILE} nor "
            f"{JUDGE_FILE} nor {' nor '.join(pair)}: put the published files there, or leave the setting "
            f"empty"
        )
    for name in found:
        loaders[name](weights_dir)


def count_layers(encoder: EncoderConfig) -> int:
    """N of the image tower, read from its config.

    Raises:
        ValueError: when there is no such model or its weights are missing.
    """
    config, folder = find_clip_config(encoder.clip)
    if folder is not None:
        _require(folder / WEIGHTS_FILE, setting="encoder.clip", is_tiny=encoder.clip == "tiny")
    return int(config["model_cfg"]["vision_cfg"]["layers"])


def check_clip(encoder: EncoderConfig) -> int:
    """N of the image tower, as `count_layers`, after a look at where its weights come from.

    Raises:
        ValueError: also when an open_clip name comes without one of its tags or a file, or another with one.
    """
    layers, given = count_layers(encoder), encoder.clip_pretrained
    _, folder = find_clip_config(encoder.clip, pretrained=given)
    if folder is not None:
        return layers
    tags = open_clip.list_pretrained_tags_by_model(encoder.clip)
    if given and given not in tags and Path(given).is_file():
        check_archive(Path(given))
    if not given or (given not in tags and not Path(given).is_file()):
        raise ValueError(
            f"encoder.clip_pretrained {given!r}: for {encoder.clip} expected a weight file or one of "
            f"{', '.join(tags)}"
        )
    return layers


def _check_diffusion(diffusion: DiffusionConfig) -> None:
    if diffusion.model == "tiny":
        _require(TINY_DIFFUSION / "model_index.json", setting="diffusion.model", is_tiny=True)
    check_text_widths(diffusion)


def check_network(config: Config, *, stages: Sequence[Literal[1, 2]]) -> None:
    """Build the run's network without memory, and choose what each stage trains of it.

    Raises:
        ValueError: parts that do not fit together, or a stage in which nothing trains.
    """
    clip, _ = find_clip_config(config.encoder.clip)
    widths = text_widths(config.diffusion)
    check_match(config.fusion, joint_width=int(clip["model_cfg"]["embed_dim"]), text_width=widths)
    with torch.device("meta"):
        net = empty_net(
            config,
            clip_config=clip["model_cfg"],
            scene_names=("scene",),
            object_names=("object",),
            text_width=widths,
            classes=len(label_space(config.data).labels),
        )
    for stage in stages:
        joint, train = config.fusion.joint_training, config.stage1 if stage == 1 else config.stage2
        set_trainable(net, stage=stage, tower=config.encoder.tower, joint_training=joint)
        freeze_parts(net, train.rates)
        has_denoiser = stage == 2 and config.diffusion.denoiser != "frozen"
        if not has_denoiser and not any(parameter.requires_grad for parameter in net.parameters()):
            raise ValueError(
                f"stage {stage} has nothing to train: encoder.tower is {config.encoder.tower!r}, "
                f"encoder.queries {config.encoder.queries!r}, and stage{stage}.rates of 0 freeze the rest"
            )


def check_measurable(config: Config) -> None:
    """Raise ValueError for fewer or smaller images than the metrics at the end of a round compare."""
    for name, count in (
        ("generation.per_emotion", config.generation.per_emotion),
        ("evaluation.plain_per_emotion", config.evaluation.plain_per_emotion),
    ):
        if count < FEWEST_PER_EMOTION:
            raise ValueError(
                f"{name} is {count}, but LPIPS and Sem-D compare two images of an emotion: set it to "
                f"{FEWEST_PER_EMOTION} or more"
            )
    check_picture_size(config)


def check_picture_size(config: Config) -> None:
    """Raise ValueError for pictures that are too small for one of the published networks."""
    size_px = config.diffusion.size_px
    if has_alexnet(config.evaluation.weights_dir) and size_px < SMALLEST_PX:
        raise ValueError(
            f"diffusion.size_px is {size_px}, but LPIPS by {ALEXNET_FILE} (evaluation.weights_dir) needs "
            f"pictures of at least {SMALLEST_PX} px: set it to 32 or more, or take the file out of the folder"
        )


def _require(path: Path, *, setting: str, is_tiny: bool) -> None:
    if not path.is_file():
        raise ValueError(f"{setting}: {path} is missing" + (f"; {REBUILD}" if is_tiny else ""))
