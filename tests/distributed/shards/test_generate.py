"""Generation and scoring on real actor pools: the same bytes whatever the cluster, nothing twice."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.inference.conftest import CONFIG
from tests.models.tiny import write_clip_folder
from uniemo_ray.config import GenerationConfig
from uniemo_ray.distributed.shards.actors.clip import ScoreActor
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.distributed.shards.generate import MappedShards, generate_images, score_images
from uniemo_ray.distributed.shards.scoring import Scoring, scored_already
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import committed, read_shards

POOL = Pool(memory_gb=0.5, actors=2)
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
    return generate_images(plan, store=store, model=str(model), config=config, pool=POOL)


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


@pytest.fixture(scope="module")
def scoring(clip, heads, tmp_path_factory) -> Scoring:
    folder = tmp_path_factory.mktemp("scoring")
    write_clip_folder(clip, folder / "clip", with_weights=True)
    (folder / "heads").mkdir()
    heads.save(folder / "heads" / "scorers.safetensors")
    return Scoring(str(folder / "clip"), None, str(folder / "heads"), version="v")


def score(images: Store, store: Store, scoring: Scoring) -> MappedShards:
    return score_images(images=images, store=store, scoring=scoring, plan_hash="p", pool=POOL)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_scores_are_the_same_where_images_are_painted_and_later(
    plan, model_folder, scoring, clip, tmp_path, monkeypatch
) -> None:
    names = ("images", "scores", "later-images", "later-scores")
    images, scores, later_images, later = (open_store(str(tmp_path / name)) for name in names)
    config = GENERATION
    for store, chosen in ((images, scoring), (later_images, None)):
        model = str(model_folder)
        generate_images(plan, store=store, model=model, config=config, pool=POOL, scoring=chosen)
    assert bytes_by_id(images) == bytes_by_id(later_images)
    assert len(committed(images, "scores/")) == 3
    assert not committed(later_images, "scores/")
    result = score(later_images, later, scoring)
    table = read_shards(later, "scores/")
    assert (result.rows, sum(result.failed.values())) == (14, 1)
    assert set(committed(later)) == {
        name.replace("images", "scores") for name in committed(images, "images/")
    }
    assert "image" not in table.column_names
    good = table.filter(pc.is_null(table["reason"]))
    assert all(0 < p < 1 for p in good["emo_score"].to_pylist())
    assert {len(feature) for feature in good["clip_feature"].to_pylist()} == {
        clip.config["model_cfg"]["embed_dim"]
    }

    # one shard's scores were lost with a process: it alone is read again
    for key in ("scores/part-00001.parquet", "manifest/scores/part-00001.json"):
        images.delete(key)
    (tmp_path / "images" / "images" / "part-00000.parquet").unlink()
    assert score(images, scores, scoring)[:2] == result[:2]
    assert read_shards(scores, "scores/").equals(table)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_scores_of_other_scorers_are_not_taken_over(plan, model_folder, scoring, tmp_path) -> None:
    images = open_store(str(tmp_path / "images"))
    model = str(model_folder)
    generate_images(plan, store=images, model=model, config=GENERATION, pool=POOL, scoring=scoring)
    assert len(scored_already(images, scoring)) == 3
    assert scored_already(images, replace(scoring, version="w")) == set()


def test_an_actor_scores_its_pixels_as_another_scores_its_files(plan, model_folder, scoring) -> None:
    actor = GenerateActor(str(model_folder), threads=1, scoring=scoring)
    made = actor.begin(plan)()
    (beside,) = made.beside
    other = ScoreActor(scoring.clip, scoring.heads)
    assert made.table.equals(GenerateActor(str(model_folder), threads=1)(plan))
    assert beside.table.equals(other(made.table))
    assert beside.table["reason"].null_count == 13
    assert actor.scorer is not None
    for heads in (actor.scorer.heads, other.scorer.heads):
        heads.labels = tuple("joy" if label == "amusement" else label for label in heads.labels)
    made = actor.begin(plan)()
    assert made.beside[0].table.equals(other(made.table))
    assert made.beside[0].table["reason"][0].as_py().startswith("unknown_emotion")


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
