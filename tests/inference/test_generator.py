"""Plan rows to image rows: provenance, independence of everything but the row, rows that fail."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.data.images import decode_rgb
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference import generator as generating
from uniemo_ray.inference import rendering as rendering_module
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.provenance import encode_png, library_versions, read_provenance, sha256_hex
from uniemo_ray.inference.rendering import Rendering
from uniemo_ray.models.speed import DTYPES

EMOTIONS = ("awe", "fear", "disgust")


@pytest.fixture(scope="module")
def generator(model_folder: Path) -> ImageGenerator:
    return ImageGenerator(model_folder, threads=1)


@pytest.fixture(scope="module")
def plan(generator: ImageGenerator) -> pa.Table:
    return make_plan(generator.fingerprint)


def make_plan(fingerprint: str, **diffusion: Any) -> pa.Table:
    sampling = DiffusionConfig(**{"size_px": 32, "steps": 2} | diffusion)
    generation = GenerationConfig(micro_batch=4, threads=1)
    tables = [
        PlannedImages(
            round_=1,
            kind=kind,
            per_emotion=2,
            emotions=EMOTIONS,
            seed=3,
            model=fingerprint,
            diffusion=sampling,
            generation=generation,
        ).table
        for kind in ("emotion", "plain")
    ]
    return pa.concat_tables(tables)


def batch_of(table: pa.Table) -> dict[str, np.ndarray]:
    """As Ray Data hands it over: numpy columns, read-only."""
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    for column in columns.values():
        column.setflags(write=False)
    return columns


def rows(generator: ImageGenerator, table: pa.Table) -> dict[str, dict[str, Any]]:
    out = pa.table(generator(batch_of(table)), schema=IMAGES)
    assert out["image_id"].to_pylist() == table["image_id"].to_pylist()
    return {row["image_id"]: row for row in out.to_pylist()}


@pytest.fixture(scope="module")
def images(generator: ImageGenerator, plan: pa.Table) -> dict[str, dict[str, Any]]:
    return rows(generator, plan)


def test_rows_carry_their_provenance(images, plan: pa.Table, generator: ImageGenerator, parts) -> None:
    assert len({row["sha256"] for row in images.values()}) == len(plan)
    for planned in plan.to_pylist():
        row = images[planned["image_id"]]
        assert {key: row[key] for key in planned} == planned
        assert row["sha256"] == sha256_hex(row["image"])
        assert row["reason"] is None
        assert row["versions"] == library_versions()
        assert row["model"] == generator.fingerprint
        is_emotional = planned["kind"] == "emotion"
        assert (row["scene"] in parts.net.scenes.names) == is_emotional
        assert (row["scene_weight"] > 0) == is_emotional
        text = read_provenance(row["image"])
        assert {key: text[key] for key in planned} == planned
        assert (text["scene"], text["object"]) == (row["scene"], row["object"])
        assert np.float32(text["object_weight"]) == np.float32(row["object_weight"])


@given(st.permutations(range(12)), st.integers(1, 11))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_grouping_do_not_matter(generator, plan, images, order, cut) -> None:
    shuffled = plan.take(order)
    again = rows(generator, shuffled.slice(0, cut)) | rows(generator, shuffled.slice(cut))
    assert {key: row["image"] for key, row in again.items()} == {
        key: row["image"] for key, row in images.items()
    }


def test_rows_of_other_settings_do_not_meet_in_a_batch(generator, plan, images) -> None:
    others = make_plan(generator.fingerprint, steps=3, scheduler="ddim", guidance=2.0)
    renamed = [f"other-{name}" for name in others["image_id"].to_pylist()]
    others = others.set_column(0, "image_id", pa.array(renamed))
    woven = pa.concat_tables([plan, others]).take([i + 12 * k for i in range(12) for k in (0, 1)])
    mixed = rows(generator, woven)
    assert all(mixed[name]["image"] == row["image"] for name, row in images.items())
    assert all(mixed[f"other-{name}"]["image"] != row["image"] for name, row in images.items())


def changed(table: pa.Table, row: int, column: str, value: Any) -> pa.Table:
    values = table.to_pylist()
    values[row][column] = value
    return pa.Table.from_pylist(values, schema=table.schema)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("prompt", "no place for it", "bad_request: prompt 'no place for it' has no <emotion>"),
        ("prompt", "word " * 60 + "<emotion>", "bad_request: prompt"),
        ("emotion", "joy", "bad_request: unknown emotion 'joy'"),
        ("emotion", "sadness", "bad_request: the emotion space holds no image of 'sadness'"),
        ("width", 33, "bad_settings: width must be a positive multiple of 4 px, got 33: try 32"),
        ("scheduler", "euler", "bad_settings: unknown scheduler 'euler'"),
    ],
)
def test_a_poisoned_row_fails_alone(generator, plan, images, column, value, reason) -> None:
    poisoned = rows(generator, changed(plan, 1, column, value))
    name = plan["image_id"][1].as_py()
    bad = poisoned.pop(name)
    assert bad["reason"].startswith(reason)
    assert bad["image"] is None
    assert bad["sha256"] is None
    assert bad["scene"] is None
    assert {key: row["image"] for key, row in poisoned.items()} == {
        key: row["image"] for key, row in images.items() if key != name
    }


def test_a_plan_for_another_model_or_thread_count_is_refused(generator, plan) -> None:
    with pytest.raises(ValueError, match="made for model 'feed', this is"):
        generator(batch_of(changed(plan, 0, "model", "feed")))
    with pytest.raises(ValueError, match="made for threads 2, this is 1"):
        generator(batch_of(changed(plan, 0, "threads", 2)))


def test_encoding_does_not_hold_up_painting(model_folder, plan, images, monkeypatch) -> None:
    generator, painted = ImageGenerator(model_folder), threading.Event()

    def encode(*arguments: Any, **options: Any) -> bytes:
        assert painted.wait(60)
        return encode_png(*arguments, **options)

    monkeypatch.setattr(generating, "encode_png", encode)
    finish = generator.begin(batch_of(plan))  # comes back before anything is encoded
    painted.set()
    made = pa.table(finish(), schema=IMAGES)
    assert made["image_id"].to_pylist() == plan["image_id"].to_pylist()
    assert made["image"].to_pylist() == [images[name]["image"] for name in plan["image_id"].to_pylist()]


def test_what_fails_in_an_encoding_thread_is_raised(model_folder, plan, monkeypatch) -> None:
    def fail(*arguments: Any, **options: Any) -> bytes:
        raise OSError("no memory")

    monkeypatch.setattr(generating, "encode_png", fail)
    with pytest.raises(OSError, match="no memory"):
        ImageGenerator(model_folder)(batch_of(plan))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_another_number_format_changes_the_images_little_and_is_written_down(
    model_folder, plan, images, dtype
) -> None:
    rendering = Rendering(dtype=dtype)
    generator = ImageGenerator(model_folder, rendering=rendering)
    assert {p.dtype for p in generator.painter.diffusion.denoiser.parameters()} == {DTYPES[dtype]}
    assert generator.fingerprint == ImageGenerator(model_folder).fingerprint
    for name, row in rows(generator, plan).items():
        assert json.loads(row["versions"])["dtype"] == dtype
        assert Rendering.read(row["versions"]) == rendering
        mine, theirs = (decode_rgb(r["image"], 10**6).astype(int) for r in (row, images[name]))
        assert 0 < np.abs(mine - theirs).mean() < 8


def test_a_smaller_effort_gives_the_same_pixels_in_other_bytes(model_folder, plan, images) -> None:
    for name, row in rows(ImageGenerator(model_folder, rendering=Rendering(png_level=1)), plan).items():
        assert row["image"] != images[name]["image"]
        assert (
            read_provenance(row["image"])["pixels_sha256"]
            == (read_provenance(images[name]["image"])["pixels_sha256"])
        )
        assert Rendering.read(row["versions"]) == Rendering(png_level=1)


def test_a_gpu_compiles_where_a_compiler_is(generator, monkeypatch) -> None:
    diffusion, compiled = generator.painter.diffusion, []
    monkeypatch.setattr(rendering_module, "compile_parts", compiled.extend)
    Rendering(is_compiled=True).compile(diffusion, torch.device("cpu"))
    Rendering().compile(diffusion, torch.device("cuda"))
    assert compiled == []
    Rendering(is_compiled=True).compile(diffusion, torch.device("cuda"))
    assert compiled == [diffusion.denoiser]
    monkeypatch.setattr(rendering_module.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a C compiler on every machine"):
        Rendering(is_compiled=True).compile(diffusion, torch.device("cuda"))


def test_no_rows_give_no_rows(generator, plan) -> None:
    assert rows(generator, plan.slice(0, 0)) == {}
