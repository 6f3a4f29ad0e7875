"""Rows of the generation plan to image rows: the callable of the generating actors."""

# n rows of a call

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference.model_folder import load_painter
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.provenance import encode_png, library_versions, sha256_hex
from uniemo_ray.inference.rendering import DEFAULT, Rendering
from uniemo_ray.inference.requests import Attributes, Failure, Painting, Request, SamplingSettings, Share

Columns = dict[str, NDArray[Any]]
Row = dict[str, Any]
Look = Callable[[int, NDArray[np.uint8]], None]
"""Sees the number of a row and its pixels (H, W, 3)."""
ENCODERS = 4
"""Threads that compress finished images while the next ones are painted."""


class ImageGenerator:
    """Plan rows in, image rows out; each image is a function of its plan row alone.

    What decides its bytes beside the row's seed (model, scheduler, steps, guidance, size, micro-batch,
    threads, library versions) is written into the row and into the PNG.
    """

    def __init__(
        self,
        model: str | Path | Painter,
        *,
        threads: int = 1,
        device: str = "cpu",
        fingerprint: str = "",
        rendering: Rendering = DEFAULT,
    ) -> None:
        """Load once.

        Args:
            model: a model folder (path or `s3://`), or a painter that is there already.
            threads: CPU threads; a plan made for another number is refused.
            device: torch device of a model that is loaded here.
            fingerprint: of a painter that is given; a folder knows its own.
            rendering: how to compute and store; its number format is that of a model that is loaded here.
        """
        torch.set_num_threads(threads)
        self.threads, self.rendering = threads, rendering
        self.encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="png")
        if isinstance(model, Painter):
            self.painter, self.fingerprint = model, fingerprint
        else:
            self.painter, self.fingerprint = load_painter(str(model), device=device, dtype=rendering.dtype)
            rendering.compile(self.painter.diffusion, self.painter.device)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """Paint a batch of PLAN columns into IMAGES columns, in the order of its rows.

        A row that cannot be painted (a prompt without `<emotion>`, an emotion with no image in the
        emotion space, a size that does not divide) comes back without an image and with a reason.

        Raises:
            ValueError: when the plan was made for another model or number of threads.
        """
        return self.begin(batch)()

    def begin(
        self,
        batch: Mapping[str, NDArray[Any]],
        *,
        look: Look | None = None,
    ) -> Callable[[], Columns]:
        """Paint as `__call__` does; what comes back waits until the images are encoded, and gives them.

        Encoding takes other threads than painting: begin the next batch before asking for this one. `look`
        sees the number of a row and its pixels (H, W, 3) as soon as they are painted.
        """
        rows = _rows(batch)
        self._check_plan(rows)
        made: dict[int, Future[Row]] = {}
        for settings, indices in _by_settings(rows).items():
            self._paint({i: rows[i] for i in indices}, settings, made, look)
        return lambda: _columns([made[i].result() for i in range(len(rows))])

    def reject(self, batch: Mapping[str, NDArray[Any]], reason: str) -> Columns:
        """IMAGES columns of rows that could not be painted."""
        return _columns([self._failed(row, reason) for row in _rows(batch)])

    def _check_plan(self, rows: list[Row]) -> None:
        """All rows must be meant for this actor; doing otherwise would give other bytes silently."""
        for key, mine in (("threads", self.threads), ("model", self.fingerprint)):
            others = {row[key] for row in rows} - {mine, ""}
            if others:
                raise ValueError(
                    f"the plan was made for {key} {others.pop()!r}, this is {mine!r}: make the plan anew"
                )

    def _paint(
        self,
        rows: dict[int, Row],
        settings: SamplingSettings,
        made: dict[int, Future[Row]],
        look: Look | None,
    ) -> None:
        """Paint rows of equal settings; `made` gets the rows that come of them, by number."""
        numbers = list(rows)

        def keep(index: int, result: Painting | Failure) -> None:
            number = numbers[index]
            if look is not None and isinstance(result, Painting):
                look(number, result.pixels)
            made[number] = self.encoders.submit(self._finish, rows[number], result)

        try:
            self.painter.check(settings, threads=self.threads)
        except ValueError as error:
            for index in range(len(numbers)):
                keep(index, Failure(f"bad_settings: {error}"))
            return
        requests = [_request(row) for row in rows.values()]
        self.painter.paint(requests, settings, threads=self.threads, done=keep)

    def _finish(self, row: Row, result: Painting | Failure) -> Row:
        if isinstance(result, Failure):
            return self._failed(row, result.reason)
        chosen = result.attributes[0] if result.attributes else Attributes("", None, 0.0, None, 0.0)
        made = row | {"model": self.fingerprint, "versions": self._versions()}
        stated = {key: value for key, value in chosen.stated().items() if key != "emotion"}
        png = encode_png(result.pixels, made | stated, level=self.rendering.png_level)
        made |= {key: value for key, value in stated.items() if key != "drawn_from"}  # in the file alone
        return made | {"image": png, "sha256": sha256_hex(png), "reason": None}

    def _failed(self, row: Row, reason: str) -> Row:
        absent = dict.fromkeys(("image", "sha256", "scene", "scene_weight", "object", "object_weight"))
        return row | absent | {"versions": self._versions(), "reason": reason}

    def _versions(self) -> str:
        processor = self.painter.device.type
        return library_versions(processor, self.rendering.stated(processor))


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


def _columns(rows: list[Row]) -> Columns:
    """Rows as columns of objects in the order of the schema, which alone knows the types."""
    columns = {}
    for name in IMAGES.names:
        columns[name] = np.empty(len(rows), dtype=object)
        columns[name][:] = [row[name] for row in rows]
    return columns
