"""What the driver takes to measure, to mix and to report a round of many images: files of made-up scores.

`bench_memory.py --rows N` calls it. The shards are like those of a run with CLIP ViT-L/14: 768 features a
row, 256 rows a shard. Pictures are a few bytes, because no step here may read them all.
"""

import json
import resource
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import IMAGES, KEPT, SCORES
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

SHARD, WIDTH, REAL, BAND = 256, 768, 20_000, (0.2, 0.8)
STEPS = ("evaluate", "mix", "report")


def columns_of(schema: pa.Schema, values: dict[str, Any]) -> pa.Table:
    """Rows with these values; null elsewhere."""
    rows = len(values["image_id"])
    arrays = [
        pa.array(values[field.name], field.type) if field.name in values else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def lists(rows: np.ndarray, kind: pa.DataType) -> pa.Array:
    """(M, K) as M lists."""
    flat = pa.array(rows.reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    return fixed.cast(kind)


def picture(seed: int) -> bytes:
    """A small PNG."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_round(root: Path, rows: int) -> None:
    """Images, scores and verdicts of a round, and the features of real images."""
    rng, png = np.random.default_rng(0), picture(0)
    stores = {
        name: open_store(str(root / name)) for name in ("generate-1", "score-1", "filter-1", "features")
    }
    for number, start in enumerate(range(0, rows, SHARD)):
        count = min(SHARD, rows - start)
        emotions = [EMOTIONS[i % 8] for i in range(start, start + count)]
        ids = [f"r1-emotion-{e}-{(start + i) // 8:05d}" for i, e in enumerate(emotions)]
        same: dict[str, Any] = {"image_id": ids, "emotion": emotions}
        part, ranks = f"part-{number:05d}", rng.integers(0, rows, (2, count))
        share = ranks / rows
        scores = {
            **same,
            "emo_score": 1 - share[0],
            "sem_score": 1 - share[1],
            "scene_probability": rng.random(count, dtype=np.float32),
            "predicted": emotions,
            "probabilities": lists(
                rng.dirichlet(np.ones(8), count).astype(np.float32), SCORES.field("probabilities").type
            ),
            "clip_feature": lists(
                rng.standard_normal((count, WIDTH), dtype=np.float32), SCORES.field("clip_feature").type
            ),
        }
        kept = ((share >= BAND[0]) & (share < BAND[1])).all(axis=0)
        commit(stores["score-1"], f"scores/{part}", columns_of(SCORES, scores))
        images = {**same, "image": [png] * count, "sha256": ["0" * 64] * count}
        images |= {"width": [32] * count, "height": [32] * count}
        commit(stores["generate-1"], f"images/{part}", columns_of(IMAGES, images))
        verdicts = {"image_id": ids, "emo_rank": ranks[0], "sem_rank": ranks[1], "kept": kept}
        commit(stores["filter-1"], f"kept/{part}", columns_of(KEPT, verdicts))
    for number, start in enumerate(range(0, REAL, 4096)):
        count = min(4096, REAL - start)
        real = {
            "image_id": [f"real-{start + i}" for i in range(count)],
            "emotion": [EMOTIONS[i % 8] for i in range(count)],
        }
        features = pa.table(real).append_column(
            "clip_feature",
            lists(rng.standard_normal((count, WIDTH), dtype=np.float32), pa.list_(pa.float32())),
        )
        commit(stores["features"], f"train/part-{number:05d}", features)


def commit(store: Store, name: str, table: pa.Table) -> None:
    """A shard of no plan."""
    commit_shard(store, name, table, plan_hash="bench")


class Context:
    """A step's folder and those of its inputs."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name, self.fingerprint = root, name, f"bench-{name}"

    @property
    def artefacts(self) -> Store:
        return self.artefacts_of(self.name)

    def artefacts_of(self, name: str) -> Store:
        return open_store(str(self.root / name))


def run_config(root: Path) -> Config:
    """Of a data set in folders; a mixed set of one generated image for each five real ones."""
    return Config.model_validate(
        {
            "run": str(root),
            "data": {"kind": "emoset", "root": "unused"},
            "diffusion": {"target": "crop"},
            "resources": {"actors": 2, "memory_gb_per_actor": 0.5, "workers": 1},
        }
    )


def start_ray() -> None:
    """Two CPUs."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)


def evaluate(root: Path) -> dict[str, Any]:
    """The metrics of the round's images."""
    from uniemo_ray.loop.steps.evaluation import measure_step

    start_ray()
    context: Any = Context(root, "evaluate-1")
    found = measure_step(context, run_config(root), images="generate-1", scores="score-1")
    return {name: found[name] for name in ("images", "emo_a_clip", "sem_d_clip", "fd_clip")}


def mix(root: Path) -> dict[str, Any]:
    """The training samples of the next round."""
    from uniemo_ray.loop.steps.feedback import mix as mix_step
    from uniemo_ray.store.shards import committed

    start_ray()
    context: Any = Context(root, "mix-1")
    output = mix_step(context, run_config(root), round_=1)
    shards = committed(context.artefacts, "synthetic/").values()
    return {**output.metrics, "shards": len(shards), "rows": sum(entry.rows for entry in shards)}


def report(root: Path) -> dict[str, Any]:
    """The pictures and the scatter of the report, and its page."""
    from uniemo_ray.loop.steps.finish import _samples, gather_ranks
    from uniemo_ray.report.figures import rank_scatter
    from uniemo_ray.report.samples import embed

    names = [path.name for path in root.iterdir()]
    run: Any = SimpleNamespace(store=open_store(str(root)))
    records: Any = {name: SimpleNamespace(artefacts=name) for name in names}
    config = run_config(root)
    shown = _samples(run, records, "generate-1", "score-1", source="generated", round_=1, verdicts="filter-1")
    uris = sum(len(embed(sample).uri) for sample in shown)
    charts = [rank_scatter(sample, config.filter) for sample in gather_ranks(run, config, records).values()]
    dots = sum(len(chart.kept_path) + len(chart.dropped_path) for chart in charts)
    return {"pictures": len(shown), "page_mb_of_a_round": (uris + dots) / 1e6}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["write", *STEPS])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    started = time.monotonic()
    if options.step == "write":
        write_round(options.folder, options.rows)
        return
    found = {"evaluate": evaluate, "mix": mix, "report": report}[options.step](options.folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    seconds = time.monotonic() - started
    print(json.dumps({"peak_mb": peak_mb, "seconds": seconds, "found": found}), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
