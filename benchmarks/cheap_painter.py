"""Tiny real images at no cost: what makes a hundred thousand of them fit into minutes."""

# n rows

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.distributed.shards.actors.tables import conform
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference.provenance import encode_png, library_versions, sha256_hex

SIDE_PX = 8


class CheapPainter:
    """PLAN rows in, IMAGES rows out: 8 px of noise by the row's own seed, as a PNG with its provenance."""

    def __init__(self, *, device: str, journal: str = "", delay_s: float = 0.0) -> None:
        self.journal, self.delay_s = journal, delay_s

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.journal:
            with Path(self.journal).open("a") as file:
                file.write(f"{table['image_id'][0].as_py()}\n")
        time.sleep(self.delay_s)
        rows = table.to_pylist()
        made = [self.paint(row) for row in rows]
        columns = {}
        for name in IMAGES.names:
            columns[name] = np.empty(len(made), dtype=object)
            columns[name][:] = [row.get(name) for row in made]
        return conform(columns, IMAGES)

    def paint(self, row: dict[str, object]) -> dict[str, object]:
        """One row."""
        seed = abs(int(str(row["seed"])))
        pixels = np.random.default_rng(seed).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        png = encode_png(pixels, row)
        return row | {"image": png, "sha256": sha256_hex(png), "versions": library_versions(), "reason": None}


def cheap_plan(images: int, generation: GenerationConfig) -> PlannedImages:
    """A plan of so many images, rounded to the eight emotions."""
    return PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=max(1, images // 8),
        seed=0,
        model="cheap",
        diffusion=DiffusionConfig(),
        generation=generation,
    )
