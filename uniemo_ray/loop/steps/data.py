"""Steps that prepare the data: canonical shards, CLIP features and VAE latents."""

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from uniemo_ray.config import SPLITS, Config
from uniemo_ray.data.duplicates import Duplicate
from uniemo_ray.data.emosketch.folder import SketchSettings
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.data.shards import ShardLimits
from uniemo_ray.data.sketch_rule import classes_in, sketch_rule
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER, IngestResult, ingest_folder
from uniemo_ray.distributed.shards.actors.clip import FeatureActor, NameActor
from uniemo_ray.distributed.shards.actors.diffusion import LatentActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.sketch import SketchFolder, draw_here, temporary_folder
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.metrics.score_sums import matrix
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.shards import commit_shard, read_shards
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.name_embeddings import FOLDER, KINDS

logger = logging.getLogger(__name__)
SKETCH = "emosketch"
NAMES_PER_SHARD = 256


def ingest(context: StepContext, config: Config) -> StepOutput:
    """Read the data folder (or draw EmoSketch first) into committed canonical shards."""
    folder, prepare = config.data.root, None
    if not folder:
        sketch = sketch_folder(context, config)
        sketch.draw(draw_here)
        folder, prepare = str(sketch.root), sketch.draw
    result = ingest_folder(
        folder,
        context.artefacts,
        source=SKETCH if config.data.kind == "sketch" else config.data.kind,
        reader=partial(open_folder, data=config.data),
        max_pixels=config.data.max_pixels,
        limits=ShardLimits(config.data.rows_per_shard, config.data.shard_mb << 20),
        pool=pool_of(context, config),
        prepare=prepare,
        by_valence=config.data.valence,
    )
    for note in result.notes:
        logger.info("%s", note)
    for reason, count in result.rejected_counts.items():
        logger.warning("%d images left out: %s (listed in rejected.json)", count, reason)
    write_lists(context.artefacts, result)
    outputs = {
        "sizes": result.counts,
        "rejected": result.rejected_counts,
        "labels": result.space.name,
        "duplicates": len(result.duplicates),
        "shards": result.shards,
    }
    return StepOutput(outputs=outputs, metrics=describe(config))


def write_lists(store: Store, result: IngestResult) -> None:
    """Write what was found beside the shards, as JSON."""
    store.write_json("rejected.json", [item._asdict() for item in result.rejected])
    store.write_json("duplicates.json", [_plain(item) for item in result.duplicates])
    names = {"emotion": result.space.labels, "scene": result.scenes, "object": result.objects}
    store.write_json("names.json", names)


def _plain(duplicate: Duplicate) -> dict[str, Any]:
    return {"sha256": duplicate.sha256, "images": [place._asdict() for place in duplicate.places]}


def sketch_folder(context: StepContext, config: Config) -> SketchFolder:
    """EmoSketch beside the run's artefacts, or for a remote run in the temporary folder of each machine."""
    local = context.artefacts.local_path_or_none(SKETCH)
    if local is None:
        local = temporary_folder() / f"uniemo-{SKETCH}-{context.fingerprint[:12]}"
    data = config.data
    sizes = data.sketch_train, data.sketch_val, data.sketch_test
    classes = classes_in(data)
    return SketchFolder(local, SketchSettings(*sizes, data.sketch_seed, data.sketch_size_px, classes))


def describe(config: Config) -> dict[str, dict[str, float] | None]:
    """The known ceiling of a generated data set, for the classes that the run tells apart."""
    rule = sketch_rule(config.data)
    return {"ceiling": None if rule is None else asdict(rule.ceiling())}


def features(context: StepContext, config: Config) -> StepOutput:
    """Frozen CLIP features of every split."""
    rows = map_shards(
        context.artefacts_of("ingest"),
        {split: f"{SAMPLES_FOLDER}/{split}" for split in SPLITS},
        target=context.artefacts,
        actor=partial(
            FeatureActor,
            clip=config.encoder.clip,
            pretrained=config.encoder.clip_pretrained,
            max_pixels=config.data.max_pixels,
        ),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    return StepOutput(outputs={"rows": rows})


def check_size(
    context: StepContext, config: Config, *, with_stage_2: bool = True, subset: RealSubset | None = None
) -> StepOutput:
    """Refuse a training split of less than one batch, before anything expensive is computed of it."""
    stages = [config.stage1, config.stage2] if with_stage_2 else [config.stage1]
    there = context.inputs["ingest"].outputs["sizes"]["train"]
    images = there if subset is None else min(there, subset.count)
    batch_size = max(stage.batch_size for stage in stages)
    if images < batch_size:
        raise ValueError(
            f"the training split has {images} usable images, less than one batch of {batch_size}: "
            "lower batch_size"
        )
    if subset is not None and subset.count > there:
        raise ValueError(
            f"feedback.real_images is {subset.count}, but the training split has {there} usable images: "
            "lower it, or leave it out for all of them"
        )
    return StepOutput(outputs={"images": images})


def names(context: StepContext, config: Config) -> StepOutput:
    """Text embeddings of the attribute base; few names are not worth the start of an actor."""
    base = read_names(context)
    every = sorted({*base.scenes, *base.objects, *KINDS})
    embed = partial(
        NameActor,
        clip=config.encoder.clip,
        pretrained=config.encoder.clip_pretrained,
    )
    store, plan_hash = context.artefacts, context.fingerprint
    if len(every) <= NAMES_PER_SHARD:
        table = embed()(pa.table({"name": pa.array(every, pa.string())}))
        commit_shard(store, f"{FOLDER}/part-00000", table, plan_hash=plan_hash)
        return StepOutput(outputs={"names": len(every)})
    for number, start in enumerate(range(0, len(every), NAMES_PER_SHARD)):
        part = pa.table({"name": every[start : start + NAMES_PER_SHARD]})
        commit_shard(store, f"plan/part-{number:05d}", part, plan_hash=plan_hash)
    map_shards(
        store,
        {FOLDER: "plan"},
        target=store,
        actor=embed,
        plan_hash=plan_hash,
        pool=pool_of(context, config),
    )
    return StepOutput(outputs={"names": len(every)})


def latents(context: StepContext, config: Config) -> StepOutput:
    """The training split with a column of VAE latents, computed once instead of every epoch."""
    if config.diffusion.target == "crop":
        logger.info("diffusion.target is 'crop', a random transform: latents are computed in every step")
        return StepOutput(outputs={"rows": {"train": 0}})
    rows = map_shards(
        context.artefacts_of("ingest"),
        {"train": f"{SAMPLES_FOLDER}/train"},
        target=context.artefacts,
        actor=partial(LatentActor, diffusion=config.diffusion, max_pixels=config.data.max_pixels),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    return StepOutput(outputs={"rows": rows})


def read_names(context: StepContext) -> AttributeNames:
    """The attribute base that `ingest` found."""
    names = context.artefacts_of("ingest").read_json("names.json")
    return AttributeNames(scenes=tuple(names["scene"]), objects=tuple(names["object"]))


def read_features(store: Store, split: str, subset: RealSubset | None = None) -> dict[str, np.ndarray]:
    """Columns of one split's feature shards, as numpy; for a worker that trains on all of them."""
    table = read_shards(store, f"{split}/")
    if subset is not None:
        table = table.filter(pa.array(subset.mask(table["image_id"].to_pylist())))
    return feature_columns(table)


def real_ids(features: Store, subset: RealSubset | None) -> pa.Array | None:
    """Ids of the real training images that count; None for all."""
    if subset is None:
        return None
    ids = [
        name
        for table in iterate_columns(features, "train/", ["image_id"])
        for name in table["image_id"].to_pylist()
    ]
    return subset.keep(ids)


def feature_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns of feature rows, as numpy; the features are (M, E)."""
    names = [name for name in table.column_names if name != "clip_feature"]
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    # torch asks for memory that may be written, which Arrow's may not
    return columns | {"clip_feature": np.require(matrix(table["clip_feature"]), requirements="W")}
