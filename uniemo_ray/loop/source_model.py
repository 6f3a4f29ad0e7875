"""What is known of a model folder that only understands, and how a run is configured to complete it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space, open_folder
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.inference.checksums import CHECKSUMS, CONFIG, TRAINING, read_config, stated_files
from uniemo_ray.inference.model_folder import NO_DIFFUSION
from uniemo_ray.inference.model_settings import stated_settings
from uniemo_ray.inference.model_source import read_labels
from uniemo_ray.loop.preflight import check_clip, check_data, check_trainable
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import setting
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import changes

SHAPES = ("encoder", "fusion", "losses")
"""Settings that shape the network; of these, only where frozen CLIP lies may be given anew."""


@dataclass(frozen=True)
class SourceModel:
    """What is known of a model folder before its weights are read."""

    uri: str
    fingerprint: str
    settings: dict[str, Any]
    """Sections of its config."""
    names: AttributeNames
    labels: LabelSpace


def open_source(uri: str) -> SourceModel:
    """Look at a model folder.

    Args:
        uri: local path or `s3://`.

    Raises:
        ValueError: one line, for what is no model folder or can never generate.
    """
    store = open_store(uri)
    if not store.exists(CONFIG) or not store.exists(CHECKSUMS):
        raise ValueError(f"{uri} is no model folder: give one that uniemo import-checkpoint has written")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in filter(store.exists, (CONFIG, CHECKSUMS, TRAINING)):
            (folder / name).write_bytes(store.read_bytes(name))
        header = read_config(folder)
        files, fingerprint = stated_files(folder)
        labels = read_labels(folder)
        settings = stated_settings(folder, header)
    if header.get("base"):
        raise ValueError(f"{uri} is compact, and complete already: give an imported model")
    if not any(name.startswith("diffusion/") for name in files):
        raise ValueError(
            f"{uri} {NO_DIFFUSION}; import a checkpoint of stage 2 (a folder) with diffusion.model"
        )
    names = AttributeNames(tuple(header["names"]["scene"]), tuple(header["names"]["object"]))
    return SourceModel(store.uri, fingerprint, settings, names, labels)


def configure(source: SourceModel, path: str | None, overrides: list[str]) -> Config:
    """The model's own settings, with the data set, the run and where frozen CLIP lies from the command line.

    Raises:
        ValueError: one line, for a setting that is wrong or belongs to the model.
    """
    base = {**source.settings, "feedback": {"rounds": 0}}
    own, config = load_config(None, [], base=base), load_config(path, overrides, base=base)
    before, after = ({name: setting(each, name) for name in SHAPES} for each in (own, config))
    for shape in (before, after):
        shape["encoder"] |= dict.fromkeys(("clip", "clip_pretrained"))
    if differing := changes(before, after):
        raise ValueError(f"{differing[0]}: the first is the model's own setting, which cannot change")
    return config


def check_completion(source: SourceModel, config: Config) -> None:
    """Raise ValueError, one line, for a data set or CLIP that will not do; before Ray starts."""
    check_trainable(config)
    if (space := label_space(config.data)) != source.labels:
        raise ValueError(
            f"{source.uri} tells {', '.join(source.labels.labels)} apart, but the data set has the classes "
            f"{', '.join(space.labels)}: give one with the model's own"
        )
    check_data(config.data)
    check_clip(config.encoder)
    if config.data.kind != "sketch":
        check_names(source, open_folder(str(config.data.root), config.data).names)


def check_names(source: SourceModel, found: AttributeNames) -> None:
    """Raise ValueError for a scene or an object that the model has never heard of."""
    pairs = (("scene", source.names.scenes, found.scenes), ("object", source.names.objects, found.objects))
    for kind, known, wanted in pairs:
        if strange := sorted(set(wanted) - set(known)):
            raise ValueError(
                f"the data set has the {kind} {strange[0]!r} (and {len(strange) - 1} more), which "
                f"{source.uri} does not know: import the checkpoint again with --data FOLDER"
            )
