"""An image that ingest has let in is refused by no step that follows."""

import inspect
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.models.tiny import write_clip
from uniemo_ray.config import DiffusionConfig
from uniemo_ray.data.images import ImageError
from uniemo_ray.distributed.shards.actors.clip import FeatureActor
from uniemo_ray.distributed.shards.actors.diffusion import LatentActor
from uniemo_ray.loop.steps import data, image_metrics, inception, training
from uniemo_ray.loop.steps.scored_images import ScoredImages
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.resnet import IMAGENET_FILE, PLACES_FILE
from uniemo_ray.pools import find_pool
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

LIMIT = 60_000_000
ONE_IMAGE = ScoredImages(
    ids=pa.array(["a"]), emotions=pa.array(["awe"]), places=np.array([0]), left_out=pa.array([]), rows=1
)


@pytest.fixture
def context(tmp_path):
    store = open_store(str(tmp_path))
    return SimpleNamespace(
        artefacts=store, artefacts_of=lambda name: store, fingerprint="f", name="step", pool="features"
    )


def published(context, config):
    weights = Path(config.evaluation.weights_dir)
    for name in (PLACES_FILE, IMAGENET_FILE):
        (weights / name).touch()
    judged = pa.table({"image_id": ["a"], "scene_probability": [0.5], "object_probability": [0.5]})
    commit_shard(context.artefacts, f"{image_metrics.JUDGES}/part-0", judged, plan_hash="f")
    reader = image_metrics._Reader(config, ONE_IMAGE, find_pool(config, "features"))
    image_metrics._judge(context, config, context.artefacts, "a", reader=reader, is_generated=False)


def both_protocols(context, config):
    (Path(config.evaluation.weights_dir) / INCEPTION_FILE).touch()
    inception.inception_step(context, config)
    commit_shard(context.artefacts, "images/part-0", pa.table({"image_id": ["a"]}), plan_hash="f")
    inception.published_features(context, config, context.artefacts, "images", images=ONE_IMAGE)


@pytest.mark.parametrize(
    ("module", "run"),
    [
        (data, data.features),
        (data, data.latents),
        (training, lambda context, config: training.run_encoder(context, config, {})),
        (image_metrics, published),
        (inception, both_protocols),
    ],
)
def test_every_actor_that_decodes_samples_is_told_the_limit(context, tmp_path, monkeypatch, module, run):
    """Only what goes to the pool is looked at; the pool itself has tests of its own."""
    asked = []
    monkeypatch.setattr(module, "map_shards", lambda *_, actor, **__: asked.append(actor))
    (tmp_path / "weights").mkdir()
    values = [f"data.max_pixels={LIMIT}", f"evaluation.weights_dir={tmp_path / 'weights'}"]
    run(context, load_config(None, values))
    assert asked
    for actor in asked:
        assert actor.keywords["max_pixels"] == LIMIT
        assert {*actor.keywords, "device"} <= set(inspect.signature(actor.func).parameters)


def test_the_actors_keep_to_it(tmp_path):
    write_clip(tmp_path)
    file = io.BytesIO()
    Image.new("RGB", (33, 32)).save(file, format="PNG")
    table = pa.table({"image_id": ["a"], "image": pa.array([file.getvalue()], pa.binary())})
    tiny = DiffusionConfig(model="tiny", size_px=16)
    for make in (
        lambda limit: FeatureActor(str(tmp_path), max_pixels=limit),
        lambda limit: LatentActor(tiny, max_pixels=limit),
    ):
        assert make(33 * 32)(table).num_rows == 1
        with pytest.raises(ImageError, match="huge"):
            make(33 * 32 - 1)(table)
