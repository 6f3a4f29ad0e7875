"""An image comes back byte for byte from its row, alone and in another place of the batch."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.inference.test_generator import batch_of, make_plan
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference import regenerate as regenerating
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.regenerate import regenerate
from uniemo_ray.inference.rendering import Rendering
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput


@pytest.fixture(scope="module")
def run(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run with a model step and a generating step in two shards, the last image a failure."""
    folder = RunFolder.open(str(tmp_path_factory.mktemp("runs") / "run"), {})

    def model(context: StepContext) -> StepOutput:
        context.artefacts.upload_dir(model_folder, "model")
        return StepOutput(outputs={"model": ImageGenerator(model_folder).fingerprint})

    def generate(context: StepContext) -> StepOutput:
        generator = ImageGenerator(model_folder)
        rows = make_plan(generator.fingerprint).to_pylist()
        rows[-1]["prompt"] = "<emotion> in a plain prompt"
        plan = pa.Table.from_pylist(rows, schema=make_plan("").schema)
        images = pa.table(generator(batch_of(plan)), schema=IMAGES)
        for number, start in enumerate((0, 7)):
            name = f"images/part-{number:05d}"
            commit_shard(context.artefacts, name, images.slice(start, 7), plan_hash="p")
        return StepOutput()

    pipeline = Pipeline(folder)
    pipeline.step("model-1", run=model)
    pipeline.step("generate-1", run=generate, inputs=["model-1"])
    pipeline.run()
    return folder.store


@pytest.mark.parametrize("image_id", ["r1-emotion-fear-00001", "r1-plain-awe-00000"])
def test_the_same_bytes(run: Store, image_id: str) -> None:
    made = regenerate(run, image_id)
    assert made.is_same
    assert made.png.startswith(b"\x89PNG")
    assert made.recorded["image_id"] == image_id
    assert "image" not in made.recorded


def test_it_is_made_on_the_kind_of_processor_that_made_it(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watch(model: str, *, threads: int, device: str, rendering: Rendering) -> ImageGenerator:
        asked.append(device)
        return ImageGenerator(model, threads=threads, device="cpu")

    monkeypatch.setattr(regenerating, "ImageGenerator", watch)
    find = regenerating.find_image
    for processor in ("cpu", "cuda"):
        row = find(run, "r1-emotion-fear-00001")
        versions = json.dumps(json.loads(row["versions"]) | {"processor": processor})
        monkeypatch.setattr(regenerating, "find_image", lambda *_, row=row, v=versions: row | {"versions": v})
        regenerate(run, "r1-emotion-fear-00001")
    assert asked == ["cpu", "cuda"]


def test_what_cannot_come_back_is_named(run: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no generated image 'r9'"):
        regenerate(run, "r9")
    with pytest.raises(
        ValueError, match=r"r1-plain-disgust-00001 has no picture.*must not contain <emotion>"
    ):
        regenerate(run, "r1-plain-disgust-00001")
    local = run.local_path_or_none()
    assert local is not None
    copy = open_store(str(tmp_path))
    copy.upload_dir(local)
    for key in copy.list("artefacts"):
        if "/model/" in key:
            copy.delete(key)
    with pytest.raises(ValueError, match="no longer holds the model"):
        regenerate(copy, "r1-plain-awe-00000")
