"""Where should expert queries start? Test accuracy of stage 1 by `encoder.query_start`, with paired seeds.

    python benchmarks/study_query_start.py --out build/study-query-start.json

Preset `tiny`, EmoSketch, without Ray. The arms of a seed see the same pictures in one order with the same
crops, and all of their other weights start alike. A run that was stopped goes on with what is missing.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import torch

from uniemo_ray.config import Config
from uniemo_ray.data.emosketch.write import write_sketch
from uniemo_ray.data.readers import open_folder
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.seeds import hash_seed, named_rng
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.atomic import write_atomically
from uniemo_ray.training.batches import Batch, Raw
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Schedule, evaluate, train
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.schedule import steps_per_epoch
from uniemo_ray.training.stage import build_stage
from uniemo_ray.training.stage_settings import StageSettings
from uniemo_ray.training.state import TrainState

WIDTH = 192
"""D of the tiny CLIP's image tower."""
Split = dict[str, np.ndarray]


@dataclass(frozen=True)
class Data:
    """An EmoSketch in memory."""

    train: Split
    test: Split
    scenes: tuple[str, ...]
    objects: tuple[str, ...]


def draw_data(*, train: int, test: int, seed: int) -> Data:
    """Draw and read one EmoSketch."""
    with tempfile.TemporaryDirectory() as folder:
        write_sketch(folder, train=train, val=8, test=test, seed=seed, size_px=64, workers=2)
        config = Config().data.model_copy(update={"kind": "emoset", "root": folder})
        read = open_folder(folder, config)
        splits = {name: _read(Path(folder), read.entries(name)) for name in ("train", "test")}
        return Data(splits["train"], splits["test"], tuple(read.names.scenes), tuple(read.names.objects))


def _read(root: Path, entries: list[Any]) -> Split:
    rows: dict[str, list[Any]] = {name: [] for name in ("image_id", "image", "emotion", "scene", "objects")}
    for entry in entries:
        said = json.loads((root / entry.annotation).read_text())
        rows["image_id"].append(entry.image_id)
        rows["image"].append((root / entry.image).read_bytes())
        rows["emotion"].append(entry.emotion)
        rows["scene"].append(said.get("scene"))
        rows["objects"].append(said.get("object"))
    return {name: _column(values) for name, values in rows.items()}


def _column(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def batches(parts: StageParts, rows: Split, config: Config, epoch: int | None) -> Iterator[Batch]:
    """One epoch in an order of its own, or with `epoch` None all rows once without augmentation."""
    count, size = len(rows["image_id"]), config.stage1.batch_size
    order = np.arange(count)
    if epoch is not None:
        named_rng(config.seed, f"order/{epoch}").shuffle(order)
    stop = count if epoch is None else count // size * size
    for start in range(0, stop, size):
        raw: Raw = {name: column[order[start : start + size]] for name, column in rows.items()}
        yield parts.collate(raw, epoch=epoch or 0, is_training=epoch is not None)


def run_arm(data: Data, *, start: float, seed: int, epochs: int, queries: str) -> dict[str, float]:
    """Train stage 1 once; its test values, and how far apart its queries lie before and after."""
    sets = [f"seed={seed}", f"stage1.epochs={epochs}", f"encoder.queries={queries}", "stage1.zero_stage=0"]
    sets += ["resources.workers=1", "stage1.precision=fp32", f"encoder.query_start={start}"]
    config = load_config("tiny", sets)
    torch.manual_seed(hash_seed(seed, "build"))
    settings = StageSettings(stage="understanding", config=config, scenes=data.scenes, objects=data.objects)
    parts = build_stage(settings)
    rows = len(data.train["image_id"])
    steps = steps_per_epoch(rows, batch_size=config.stage1.batch_size)
    engine = Engine(parts.objective, parts.groups, train=config.stage1, total_steps=epochs * steps, seed=seed)
    seen = next(batches(parts, data.test, config, None))
    before = spread(parts, seen)
    train(
        engine,
        batches=lambda epoch: batches(parts, data.train, config, epoch),
        validation=None,
        schedule=Schedule(epochs, checkpoint_every_s=1e9),
        state=TrainState(),
        save=lambda state, metrics: None,
    )
    tested = evaluate(engine, batches(parts, data.test, config, None))
    return {**tested, **{f"start_{k}": v for k, v in before.items()}, **spread(parts, seen)}


@torch.no_grad()
def spread(parts: StageParts, batch: Batch) -> dict[str, float]:
    """How far apart scene queries are where they enter their interactive block, over a batch.

    `query_cosine` is the mean cosine between two of them; `query_rank` the effective rank, the exponential of
    the entropy of the singular values. Empty without queries.
    """
    net = parts.exports["net"]
    assert isinstance(net, UniEmoNet)
    if not net.has_queries:
        return {}
    net.eval()
    queries = net.encoder.chain(
        parts.collate.preprocess.from_bytes(batch.tensors["pixels"])
    ).scene.queries.double()  # (B, Q, D)
    unit = torch.nn.functional.normalize(queries, dim=2)
    count = unit.shape[1]
    cosine = ((unit @ unit.mT).sum(dim=(1, 2)) - count) / (count * (count - 1))
    share = torch.linalg.svdvals(queries)
    share = share / share.sum(dim=1, keepdim=True)
    rank = (-(share * share.log()).sum(dim=1)).exp()
    return {"query_cosine": float(cosine.mean()), "query_rank": float(rank.mean())}


def main() -> None:
    """Run what the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON; it is extended")
    parser.add_argument("--train", type=int, default=1400, help="training images")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    starts = {"0.02": 0.02, "D ** -0.5": WIDTH**-0.5, "1": 1.0}
    arms = {"none": ("none", 0.02), **{name: ("multi_stage", start) for name, start in starts.items()}}
    found: dict[str, dict[str, float]] = json.loads(given.out.read_text()) if given.out.exists() else {}
    data = None
    for seed in given.seeds:
        for arm, (queries, start) in arms.items():
            key = f"{arm}/{seed}/{given.train}/{given.epochs}"
            if key in found:
                continue
            data = data or draw_data(train=given.train, test=given.test, seed=0)
            found[key] = run_arm(data, start=start, seed=seed, epochs=given.epochs, queries=queries)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(given.out) as file:
                file.write(json.dumps(found, indent=1).encode())
            print(key, {name: round(value, 4) for name, value in found[key].items()}, flush=True)


if __name__ == "__main__":
    main()
