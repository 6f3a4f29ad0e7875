"""An imported checkpoint gets what it lacks, and generates."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from uniemo_ray import UniEmo
from uniemo_ray.config import Config
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.inference.model_folder import CONFIG, load_model_folder
from uniemo_ray.inference.released import import_checkpoint, write_released
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.source_model import (
    SourceModel,
    check_completion,
    check_names,
    configure,
    open_source,
)
from uniemo_ray.loop.step_tables import completion_steps
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.pipeline_folder import text_widths
from uniemo_ray.models.released import to_released
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.shipped import SHIPPED_FOLDER
from uniemo_ray.statistics.coefficients import coefficients_by_key
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline

TINY = ["encoder.clip=tiny", "encoder.clip_pretrained=null", "diffusion.model=tiny"]
DATA = [
    *(f"data.sketch_{split}={count}" for split, count in (("train", 48), ("val", 16), ("test", 16))),
    "data.rows_per_shard=24",
    "stage1.batch_size=16",
    "scorers.epochs=2",
    "resources.actors=1",
    "resources.memory_gb_per_actor=0.5",
]


def import_tiny(folder: Path, *, names: AttributeNames, with_diffusion: bool = True) -> Path:
    """A released checkpoint of an untrained network on the tiny CLIP, imported."""
    overrides = ["preset=vit_l14_sd15_released", *TINY, "diffusion.text_widths=null"]
    overrides.append("fusion.condition_head=own")
    config = load_config(None, [*overrides, "diffusion.revision=null", "diffusion.size_px=64"])
    clip = load_clip("tiny")
    torch.manual_seed(0)
    net = build_net(
        config, clip=clip, scene_names=(), object_names=(), text_width=text_widths(config.diffusion)
    )
    for parameter in net.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    write_released(to_released(net, clip.model.state_dict() | {}), folder / "stage2")
    import_checkpoint(
        folder / "stage2", config, str(folder / "imported"), names=names, with_diffusion=with_diffusion
    )
    return folder / "imported"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rule = load_rule()
    names = AttributeNames(tuple(rule.scenes), tuple(rule.objects))
    return import_tiny(tmp_path_factory.mktemp("imported"), names=names)


def run(source: SourceModel, config: Config, folder: Path) -> dict:
    pipeline = Pipeline(RunFolder.open(str(folder), config))
    views = declare(pipeline, config, completion_steps(config, source))
    done = {result.record.name: result for result in pipeline.run()}
    if not any(result.is_skipped for result in done.values()):
        assert {name: idle for name, view in views.items() if (idle := unread(view))} == {}
    return done


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_imported_checkpoint_generates(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image of 'awe'"):
        UniEmo.from_pretrained(imported).generate("awe", steps=1)
    source = open_source(str(imported))
    config = configure(source, None, DATA)
    check_completion(source, config)
    done = run(source, config, tmp_path / "run")
    assert list(done) == ["ingest", "features", "scorers", "coefficients", "encode", "model"]
    folder = tmp_path / "run" / done["model"].record.artefacts / "model"
    before, after = load_model_folder(imported), load_model_folder(folder)
    assert after.space.counts.sum() == 48
    assert after.scorers is not None
    assert 0 <= done["encode"].record.metrics["test_accuracy"] <= 1
    table = coefficients_by_key(pq.read_table(folder / "coefficients.parquet"))
    for kind, base in (("scene", after.net.scenes), ("object", after.net.objects)):
        rows = [(name, alpha) for (of, name), alpha in table.items() if of == kind]
        assert rows
        for name, alpha in rows:
            np.testing.assert_allclose(base.coefficients[base.names.index(name)], alpha, atol=1e-6)
    # nothing was trained, and all else is as it was
    mine, theirs = after.net.state_dict(), before.net.state_dict()
    assert {name for name in mine if not torch.equal(mine[name], theirs[name])} == {
        "scenes.coefficients",
        "objects.coefficients",
    }
    assert after.config == before.config
    assert (folder / "clip" / "text_tower.safetensors").is_file()

    # the emotion space is that of the model's own features
    samples = pq.read_table(tmp_path / "run" / done["ingest"].record.artefacts / "samples" / "train")
    model = UniEmo.from_pretrained(folder)
    pixels = [row["image"] for row in samples.to_pylist() if row["emotion"] == "awe"]
    features = features_of(model, pixels)
    np.testing.assert_allclose(after.space.mean["cls"][1], features.mean(axis=0), atol=1e-4)
    (picture,) = model.generate("awe", steps=1)
    assert np.asarray(picture).std() > 0

    again = run(source, config, tmp_path / "run")
    assert all(result.is_skipped for result in again.values())


def features_of(model: UniEmo, pictures: list[bytes]) -> np.ndarray:
    from uniemo_ray.inference.pictures import read_picture

    squares = [model.preprocess.square(read_picture(picture, 0)) for picture in pictures]
    with torch.no_grad():
        said = model.net.understand(model.preprocess.pixels(squares))
    return said.features.cls.double().numpy()


def test_another_model_or_clip_redoes_the_encoding(imported: Path, tmp_path: Path) -> None:
    source = open_source(str(imported))
    config = configure(source, None, DATA)

    def fingerprints(source: SourceModel) -> dict[str, str]:
        pipeline = Pipeline(RunFolder.open(str(tmp_path / "run"), config))
        declare(pipeline, config, completion_steps(config, source))
        return {name: step.fingerprint for name, step in pipeline._steps.items()}

    first = fingerprints(source)
    other = fingerprints(replace(source, fingerprint="0" * 16))
    assert {name for name in first if first[name] != other[name]} == {"encode", "model"}


class TestBadInput:
    """One line each, before Ray starts."""

    def test_what_is_no_model_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is no model folder: give one that uniemo import-checkpoint"):
            open_source(str(tmp_path / "nowhere"))

    def test_a_compact_model(self) -> None:
        with pytest.raises(ValueError, match="is compact, and complete already"):
            open_source(str(SHIPPED_FOLDER))

    def test_a_model_that_can_never_generate(self, tmp_path: Path) -> None:
        folder = import_tiny(tmp_path, names=AttributeNames(), with_diffusion=False)
        with pytest.raises(ValueError, match="makes none; import a checkpoint of stage 2"):
            open_source(str(folder))

    def test_another_version(self, imported: Path, tmp_path: Path) -> None:
        header = json.loads((imported / CONFIG).read_text()) | {"version": 99}
        (tmp_path / CONFIG).write_text(json.dumps(header))
        (tmp_path / "checksums.json").write_text("{}")
        with pytest.raises(ValueError, match="has format version 99"):
            open_source(str(tmp_path))

    def test_a_setting_that_belongs_to_the_model(self, imported: Path) -> None:
        source = open_source(str(imported))
        with pytest.raises(
            ValueError, match=r"encoder\.interactive_layers: 1 -> 2: the first is the model's"
        ):
            configure(source, None, [*DATA, "encoder.interactive_layers=2"])
        moved = configure(source, None, [*DATA, "encoder.clip=/elsewhere"])
        assert moved.encoder.interactive_layers == 1
        with pytest.raises(ValueError, match=r"unknown CLIP '/elsewhere' \(encoder\.clip\)"):
            check_completion(source, moved)

    @pytest.mark.parametrize(
        "other",
        [
            ["data.labels=ekman"],
            ["data.labels=[calm, tense]", "data.sketch_classes={calm: [awe], tense: [fear]}"],
        ],
    )
    def test_a_data_set_of_other_classes(self, imported: Path, other: list[str]) -> None:
        source = open_source(str(imported))
        with pytest.raises(ValueError, match=r"but the data set has the classes .*: give one with the model"):
            check_completion(source, configure(source, None, [*DATA, *other]))

    def test_an_unknown_setting(self, imported: Path) -> None:
        with pytest.raises(ValueError, match=r"data\.nonsense: unknown setting"):
            configure(open_source(str(imported)), None, ["data.nonsense=1"])

    def test_names_that_the_model_does_not_know(self, imported: Path) -> None:
        source = open_source(str(imported))
        known = AttributeNames(source.names.scenes[:3], source.names.objects)
        check_names(source, known)
        with pytest.raises(ValueError, match=r"has the object 'xylophone' \(and 0 more\), .* --data FOLDER"):
            check_names(source, AttributeNames(known.scenes, ("lion", "xylophone")))

    def test_a_data_set_of_another_kind(self, imported: Path, tmp_path: Path) -> None:
        source = open_source(str(imported))
        config = configure(source, None, ["data.kind=emoset", f"data.root={tmp_path}"])
        with pytest.raises(ValueError, match=r"info\.json"):
            check_completion(source, config)
