"""Generation and scoring on real actor pools: the same bytes whatever the cluster, nothing twice."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.inference.conftest import CONFIG
from tests.models.tiny import write_clip_folder
from uniemo_ray.config import EncoderConfig, GenerationConfig, ResourceConfig
from uniemo_ray.distributed.shards.generate import MappedShards, generate_images, score_images
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import committed, read_shards

RESOURCES = ResourceConfig(memory_gb_per_actor=0.5)
GENERATION = GenerationConfig(micro_batch=4, threads=1, rows_per_shard=5, actors=2)


@pytest.fixture(scope="module")
def plan(model_folder: Path) -> pa.Table:
    """14 rows, one of them poisoned."""
    generator = ImageGenerator(model_folder)
    table = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=2,
        emotions=["amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear"],
        seed=1,
        model=generator.fingerprint,
        diffusion=CONFIG.diffusion,
        generation=GENERATION,
    ).table
    rows = table.to_pylist()
    rows[3]["prompt"] = "poison"
    return pa.Table.from_pylist(rows, schema=table.schema)


def run(plan: pa.Table, store: Store, model: Path, **changes: object) -> MappedShards:
    config = GENERATION.model_copy(update=changes)
    return generate_images(plan, store=store, model=str(model), config=config, resources=RESOURCES)


def bytes_by_id(store: Store) -> dict[str, bytes | None]:
    table = read_shards(store, "images/", columns=["image_id", "image"])
    ids = table["image_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, table["image"].to_pylist(), strict=True))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_bytes_do_not_depend_on_actors_blocks_or_crashes(plan, model_folder, tmp_path) -> None:
    two, one = open_store(str(tmp_path / "two")), open_store(str(tmp_path / "one"))
    result = run(plan, two, model_folder)
    images = bytes_by_id(two)
    assert result.rows == 14
    assert list(result.failed.values()) == [1]
    assert result.rows_per_second_and_actor > 0
    assert "prompt 'poison' has no <emotion>" in next(iter(result.failed))
    assert [name for name, image in images.items() if image is None] == [plan["image_id"][3].as_py()]
    assert len(committed(two, "images/")) == 3

    shuffled = plan.take([(5 * i + 3) % 14 for i in range(14)])
    run(shuffled, one, model_folder, actors=1, rows_per_shard=4)
    assert bytes_by_id(one) == images

    # a crash lost one shard: it alone is made again, and the others are not touched
    lost = "images/part-00001"
    others = {
        key: (tmp_path / "two" / key).stat().st_mtime_ns for key in two.list("images") if lost not in key
    }
    for key in (f"{lost}.parquet", f"manifest/{lost}.json"):
        two.delete(key)
    assert run(plan, two, model_folder).rows == 14
    assert bytes_by_id(two) == images
    assert {key: (tmp_path / "two" / key).stat().st_mtime_ns for key in others} == others
    with pytest.raises(ValueError, match="plan"):
        run(shuffled, two, model_folder)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_scores_go_into_files_of_their_own(plan, model_folder, clip, heads, tmp_path) -> None:
    images, scores = open_store(str(tmp_path / "images")), open_store(str(tmp_path / "scores"))
    run(plan, images, model_folder)
    write_clip_folder(clip, tmp_path / "clip", with_weights=True)
    (tmp_path / "heads").mkdir()
    heads.save(tmp_path / "heads" / "scorers.safetensors")
    result = score_images(
        images=images,
        store=scores,
        encoder=EncoderConfig(clip=str(tmp_path / "clip")),
        heads=str(tmp_path / "heads"),
        plan_hash="p",
        resources=RESOURCES,
    )
    table = read_shards(scores, "scores/")
    assert result.rows == 14
    assert sum(result.failed.values()) == 1
    assert set(committed(scores)) == {
        name.replace("images", "scores") for name in committed(images, "images/")
    }
    assert "image" not in table.column_names
    good = table.filter(pc.is_null(table["reason"]))
    assert all(0 < p < 1 for p in good["emo_score"].to_pylist())
    assert {len(feature) for feature in good["clip_feature"].to_pylist()} == {
        clip.config["model_cfg"]["embed_dim"]
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_wrong_model_is_one_clear_error_and_not_tried_again(plan, model_folder, tmp_path, caplog) -> None:
    other = plan.set_column(plan.column_names.index("model"), "model", pa.array(["feed"] * 14))
    with pytest.raises(ValueError, match="made for model 'feed', this is"):
        run(other, open_store(str(tmp_path)), model_folder)
    assert "tried again" not in caplog.text


def test_a_plan_without_hope_is_refused_before_anything_starts(plan, tmp_path) -> None:
    store = open_store(str(tmp_path / "never"))
    with pytest.raises(ValueError, match=r"plan is for threads \[1\], generation.threads is 2"):
        run(plan, store, tmp_path, threads=2)
    with pytest.raises(ValueError, match="at least one image"):
        run(plan.slice(0, 0), store, tmp_path)
    with pytest.raises(ValueError, match="must be distinct, 14 rows repeat one"):
        run(pa.concat_tables([plan, plan]), store, tmp_path)
    assert not (tmp_path / "never").exists()
