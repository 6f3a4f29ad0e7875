"""A model folder that only understands, made able to generate, with the steps that the feedback loop has.

An imported checkpoint has no scorers, no coefficients and no emotion space: they follow from the model and a
training split alone, so nothing is trained but the scorers.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space, open_folder
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.distributed.datasets import read_split
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.inference.checksums import CHECKSUMS, CONFIG, read_config, stated_files
from uniemo_ray.inference.compact import NET
from uniemo_ray.inference.model_folder import NO_DIFFUSION, load_model_folder, save_model_folder
from uniemo_ray.loop.preflight import check_clip, check_data, check_trainable
from uniemo_ray.loop.step_tables import (
    CLIP,
    declare_features,
    declare_ingest,
    declare_scorers,
    setting,
)
from uniemo_ray.loop.steps.data import read_names
from uniemo_ray.loop.steps.evaluation import measure_accuracy
from uniemo_ray.loop.steps.scorers import coefficient_table, read_coefficients
from uniemo_ray.loop.steps.training import run_encoder, space_of
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import changes
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput
from uniemo_ray.training.stage import StageSettings

SHAPES = ("encoder", "fusion", "losses")
"""Settings that shape the network; of these, only where frozen CLIP lies may be given anew."""
CARD = """# UniEmo, completed

Its network came from {source}; scorers, coefficients and emotion space were computed from {data}.
"""


@dataclass(frozen=True)
class SourceModel:
    """What is known of a model folder before its weights are read."""

    uri: str
    fingerprint: str
    settings: dict[str, Any]
    """Sections of its config."""
    names: AttributeNames


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
        for name in (CONFIG, CHECKSUMS):
            (Path(scratch) / name).write_bytes(store.read_bytes(name))
        header = read_config(Path(scratch))
        files, fingerprint = stated_files(Path(scratch))
    if header.get("base"):
        raise ValueError(f"{uri} is compact, and complete already: give an imported model")
    if not any(name.startswith("diffusion/") for name in files):
        raise ValueError(
            f"{uri} {NO_DIFFUSION}; import a checkpoint of stage 2 (a folder) with diffusion.model"
        )
    names = AttributeNames(tuple(header["names"]["scene"]), tuple(header["names"]["object"]))
    return SourceModel(store.uri, fingerprint, header["config"], names)


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


def declare_completion(pipeline: Pipeline, config: Config, *, source: SourceModel) -> None:
    """Declare what an imported model lacks, step by step."""
    declare_ingest(pipeline, config)
    declare_features(pipeline, config)
    declare_scorers(pipeline, config)
    model = {"model": source.fingerprint}
    clip = {name: setting(config, name) for name in CLIP}
    made = partial(_run, config=config, source=source)
    encoding, completing = partial(made, step=encode), partial(made, step=complete)
    pipeline.step("encode", run=encoding, settings=model | clip, inputs=["ingest"])
    pipeline.step("model", run=completing, settings=model, inputs=["coefficients", "scorers", "encode"])


def _run(context: StepContext, *, step: Any, config: Config, source: SourceModel) -> StepOutput:
    output: StepOutput = step(context, config, source)
    return output


def encode(context: StepContext, config: Config, source: SourceModel) -> StepOutput:
    """Features of every training and test image by the model, and its accuracy on the latter."""
    check_names(source, read_names(context))
    stage = StageSettings(
        stage="joint",
        config=config,
        scenes=source.names.scenes,
        objects=source.names.objects,
        weights=f"{source.uri}/{NET}",
    )
    rows = run_encoder(context, config, stage.model_dump(mode="json"))
    tested = read_split(context.artefacts, "test", columns=["emotion", "logits"])
    accuracy = measure_accuracy(tested, label_space(config.data))
    return StepOutput(outputs={"rows": rows}, metrics={"test_accuracy": accuracy.top1})


def complete(context: StepContext, config: Config, source: SourceModel) -> StepOutput:
    """The model folder with all that it lacked; its network and its diffusion model stay as they are."""
    parts = load_model_folder(source.uri)
    found = context.artefacts_of("coefficients")
    alpha = read_coefficients(found)
    parts.net.scenes.set_coefficients(alpha["scene"])
    parts.net.objects.set_coefficients(alpha["object"])
    space = space_of(context.artefacts_of("encode"), parts.labels)
    whole = replace(
        parts,
        space=space,
        coefficients=coefficient_table(found),
        scorers=load_heads(context.artefacts_of("scorers")),
        card=CARD.format(source=source.uri, data=config.data.root or "EmoSketch"),
    )
    fingerprint = save_model_folder(whole, f"{context.artefacts.uri}/model")
    return StepOutput(outputs={"model": fingerprint, "space": space.counts.tolist()})
