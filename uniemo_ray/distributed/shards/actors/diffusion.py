"""Actors that need the diffusion model: latents, generated images, and samples made of these."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn

from uniemo_ray.config import MAX_PIXELS, DiffusionConfig
from uniemo_ray.data.images import RGB, decode_rgb, to_square, to_unit_range
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.distributed.shards.actors.tables import conform, to_columns
from uniemo_ray.distributed.shards.scoring import SCORES_FOLDER, SCORING_THREADS, Scoring
from uniemo_ray.distributed.shards.table_actor import Beside, Made
from uniemo_ray.feedback.schema import IMAGES, scores_schema
from uniemo_ray.inference.fixed_threads import fixed_threads
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.model_folder import Dtype
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.rendering import DEFAULT, Rendering
from uniemo_ray.inference.scorer import score_rows
from uniemo_ray.models.vae import encode_images, load_configured_vae
from uniemo_ray.read_ahead import read_batches
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import check_bytes
from uniemo_ray.training.batches import encode_latent

LATENT_BATCH = 16


class LatentActor:
    """Samples with one more column: the VAE latent of the whole, un-augmented image."""

    def __init__(self, diffusion: DiffusionConfig, max_pixels: int = MAX_PIXELS, device: str = "cpu") -> None:
        """Load the VAE, and nothing else of the diffusion model.

        Images with more than `max_pixels` are refused.
        """
        torch.set_num_threads(1)
        self.size_px, self.max_pixels, self.device = diffusion.size_px, max_pixels, device
        self.vae = load_configured_vae(diffusion)
        nn.Module.to(self.vae, device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """All columns and `latent`."""
        latents: list[bytes] = []
        images = (value.as_py() for value in table["image"])
        for squares in read_batches(images, self._read, size=LATENT_BATCH):
            pixels = to_unit_range(np.stack(squares)).to(self.device)
            latents += [encode_latent(latent) for latent in encode_images(self.vae, pixels)]
        return table.append_column("latent", pa.array(latents, pa.binary()))

    def _read(self, image: bytes) -> RGB:
        return to_square(decode_rgb(image, self.max_pixels), self.size_px)


class PainterLoader(Protocol):
    """Makes, in the process that paints, a painter that comes from no model folder."""

    def __call__(self, *, device: str, dtype: Dtype | None) -> tuple[Painter, str]:
        """The painter on a torch device, its frozen parts in a number format, and its fingerprint."""
        ...


class GenerateActor:
    """Plan rows to image rows."""

    def __init__(
        self,
        model: str | PainterLoader,
        threads: int,
        rendering: Rendering = DEFAULT,
        scoring: Scoring | None = None,
        device: str = "cpu",
    ) -> None:
        """Load the model folder or painter, and what scores its images where that is wanted."""
        if isinstance(model, str):
            self.generator = ImageGenerator(model, threads=threads, device=device, rendering=rendering)
        else:
            torch.set_num_threads(threads)
            painter, fingerprint = model(device=device, dtype=rendering.dtype)
            rendering.compile(painter.diffusion, painter.device)
            self.generator = ImageGenerator(
                painter, threads=threads, fingerprint=fingerprint, rendering=rendering
            )
        self.scoring = scoring
        self.scorer = None if scoring is None else scoring.load(device)
        self._threads, self._micro_batch = threads, 1

    @property
    def memory_advice(self) -> str:
        """A smaller micro-batch; it is never changed silently, since it decides the bytes of images."""
        if self._micro_batch == 1:
            return "generation.micro_batch is 1 already, so use accelerators with more memory"
        half = max(1, self._micro_batch // 2 // self._threads * self._threads)  # it has to split over threads
        return f"set generation.micro_batch to {half} (it is {self._micro_batch}), which makes other images"

    def __call__(self, table: pa.Table) -> pa.Table:
        """IMAGES rows."""
        return self.begin(table)().table

    def begin(self, table: pa.Table) -> Callable[[], Made]:
        """Paint and look at the pixels; what comes back gives IMAGES rows, and scores beside them."""
        self._micro_batch = max(table["micro_batch"].to_pylist(), default=1)
        columns = to_columns(table, tuple(table.column_names))
        if self.scoring is None or self.scorer is None:
            finish = self.generator.begin(columns)
            return lambda: Made(conform(finish(), IMAGES))
        scorer, plan = self.scorer, self.scoring.plan
        emotions = table["emotion"].to_pylist()
        squares: dict[int, Future[RGB]] = {}

        def look(number: int, pixels: RGB) -> None:
            if emotions[number] in scorer.heads.labels:
                squares[number] = self.generator.encoders.submit(scorer.square, pixels)

        finish = self.generator.begin(columns, look=look)
        with fixed_threads(SCORING_THREADS):
            found = scorer.judge(squares[number].result() for number in sorted(squares))

        def end() -> Made:
            made = finish()
            reasons = [
                why or (None if number in squares else f"unknown_emotion: {emotions[number]}")
                for number, why in enumerate(made["reason"])
            ]
            schema = scores_schema(len(scorer.heads.labels))
            scores = conform(score_rows(scorer.heads, made, found, reasons), schema)
            return Made(conform(made, IMAGES), (Beside(SCORES_FOLDER, scores, plan),))

        return end

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        """IMAGES rows without an image."""
        return conform(self.generator.reject(to_columns(table, tuple(table.column_names)), reason), IMAGES)


class PriorActor:
    """Generated images to their latents and labels, without the images."""

    def __init__(self, diffusion: DiffusionConfig, device: str = "cpu") -> None:
        """Load the VAE."""
        self.latents = LatentActor(diffusion, device=device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns `image_id`, `emotion` and `latent`, of IMAGES rows that have an image."""
        rows = table.filter(pc.is_valid(table["image"])).select(["image_id", "emotion", "image"])
        return self.latents(rows).drop_columns(["image"])


class SyntheticActor:
    """Chosen generated images to training samples, labelled with the intended emotion.

    They carry no scene and no object, so the contrastive terms leave them out: what the generator was
    asked for is not what a person saw.
    """

    def __init__(self, images: Store, diffusion: DiffusionConfig | None, device: str = "cpu") -> None:
        """Load the VAE, unless `diffusion` is None: then no latents are wanted. `images` has the pictures."""
        self.images = images
        self.latents = None if diffusion is None else LatentActor(diffusion, device=device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """MIX_PLAN rows to SAMPLES rows, and `latent` where wanted; one image shard in memory at a time."""
        found = [SAMPLES.empty_table()]
        for shard in table["shard"].unique().to_pylist():
            found.append(self._samples(shard, table.filter(pc.equal(table["shard"], shard))))
        made = pa.concat_tables(found)
        return made if self.latents is None else self.latents(made)

    def _samples(self, shard: str, plan: pa.Table) -> pa.Table:
        key, first = f"{shard}.parquet", plan.slice(0, 1).to_pylist()[0]
        data, where = self.images.read_bytes(key), f"{self.images.uri}/{key}"
        check_bytes(data, where, length=first["shard_bytes"], sha256=first["shard_sha256"])
        columns = ["image_id", "image", "emotion", "sha256", "width", "height"]
        rows = pq.read_table(pa.BufferReader(data), columns=columns)
        rows = rows.filter(pc.is_in(rows["image_id"], value_set=plan["image_id"].combine_chunks()))
        if rows.num_rows != plan.num_rows:
            raise ValueError(f"{where} holds {rows.num_rows} of the {plan.num_rows} images that were chosen")
        samples = [
            {**row, "objects": [], "split": "train", "source": "generated"} for row in rows.to_pylist()
        ]
        return pa.Table.from_pylist(samples, schema=SAMPLES)
