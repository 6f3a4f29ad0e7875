"""Rows of the generation plan to image rows: the callable of the generating actors."""

# n rows of a call

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference.model_folder import load_painter
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.provenance import encode_png, library_versions, sha256_hex
from uniemo_ray.inference.requests import Attributes, Failure, Painting, Request, SamplingSettings, Share

Columns = dict[str, NDArray[Any]]
Row = dict[str, Any]


class ImageGenerator:
    """Plan rows in, image rows out; each image is a function of its plan row alone.

    What decides its bytes beside the row's seed (model, scheduler, steps, guidance, size, micro-batch,
    threads, library versions) is written into the row and into the PNG.
    """

    def __init__(
        self, model: str | Path | Painter, *, threads: int = 1, device: str = "cpu", fingerprint: str = ""
    ) -> None:
        """Load once.

        Args:
            model: a model folder (path or `s3://`), or a painter that is there already.
            threads: CPU threads; a plan made for another number is refused.
            device: torch device of a model that is loaded here.
            fingerprint: of a painter that is given; a folder knows its own.
        """
        torch.set_num_threads(threads)
        self.threads = threads
        if isinstance(model, Painter):
            self.painter, self.fingerprint = model, fingerprint
        else:
            self.painter, self.fingerprint = load_painter(str(model), device=device)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """Paint a batch of PLAN columns into IMAGES columns, in the order of its rows.

        A row that cannot be painted (a prompt without `<emotion>`, an emotion with no image in the
        emotion space, a size that does not divide) comes back without an image and with a reason.

        Raises:
            ValueError: when the plan was made for another model or number of threads.
        """
        rows = _rows(batch)
        self._check_plan(rows)
        results: list[Row | None] = [None] * len(rows)
        for settings, indices in _by_settings(rows).items():
            painted = self._paint([rows[i] for i in indices], settings)
            for i, result in zip(indices, painted, strict=True):
                results[i] = result
        return _columns([row for row in results if row is not None])

    def reject(self, batch: Mapping[str, NDArray[Any]], reason: str) -> Columns:
        """IMAGES columns of rows that could not be painted."""
        return _columns([_failed(row, reason) for row in _rows(batch)])

    def _check_plan(self, rows: list[Row]) -> None:
        """All rows must be meant for this actor; doing otherwise would give other bytes silently."""
        for key, mine in (("threads", self.threads), ("model", self.fingerprint)):
            others = {row[key] for row in rows} - {mine, ""}
            if others:
                raise ValueError(
                    f"the plan was made for {key} {others.pop()!r}, this is {mine!r}: make the plan anew"
                )

    def _paint(self, rows: list[Row], settings: SamplingSettings) -> list[Row]:
        try:
            self.painter.check(settings, threads=self.threads)
        except ValueError as error:
            return [_failed(row, f"bad_settings: {error}") for row in rows]
        results = self.painter.paint([_request(row) for row in rows], settings, threads=self.threads)
        return [
            _failed(row, result.reason) if isinstance(result, Failure) else self._image_row(row, result)
            for row, result in zip(rows, results, strict=True)
        ]

    def _image_row(self, row: Row, painting: Painting) -> Row:
        chosen = painting.attributes[0] if painting.attributes else Attributes("", None, 0.0, None, 0.0)
        versions = library_versions(self.painter.device.type)
        made = row | {"model": self.fingerprint, "versions": versions}
        made |= {key: value for key, value in chosen._asdict().items() if key != "emotion"}
        png = encode_png(painting.pixels, made)
        return made | {"image": png, "sha256": sha256_hex(png), "reason": None}


def _rows(batch: Mapping[str, NDArray[Any]]) -> list[Row]:
    """Columns as rows, with Python's own numbers, which JSON knows."""
    columns = [column.tolist() for column in batch.values()]
    return [dict(zip(batch, values, strict=True)) for values in zip(*columns, strict=True)]


def _by_settings(rows: list[Row]) -> dict[SamplingSettings, list[int]]:
    """Indices of the rows that can share a micro-batch, by their settings."""
    groups: dict[SamplingSettings, list[int]] = {}
    for i, row in enumerate(rows):
        settings = SamplingSettings(
            scheduler=str(row["scheduler"]),
            steps=int(row["steps"]),
            guidance=float(row["guidance"]),
            width=int(row["width"]),
            height=int(row["height"]),
            micro_batch=int(row["micro_batch"]),
        )
        groups.setdefault(settings, []).append(i)
    return groups


def _request(row: Row) -> Request:
    emotions = (Share(str(row["emotion"]), 1.0),) if row["kind"] == "emotion" else ()
    return Request(seed=int(row["seed"]), prompt=str(row["prompt"]), emotions=emotions)


def _failed(row: Row, reason: str) -> Row:
    absent = dict.fromkeys(("image", "sha256", "scene", "scene_weight", "object", "object_weight"))
    return row | absent | {"versions": library_versions(), "reason": reason}


def _columns(rows: list[Row]) -> Columns:
    """Rows as columns of objects in the order of the schema, which alone knows the types."""
    columns = {}
    for name in IMAGES.names:
        columns[name] = np.empty(len(rows), dtype=object)
        columns[name][:] = [row[name] for row in rows]
    return columns
