"""Write EmoSketch to disk in EmoSet-118K's own layout.

Image i of a split is a function of (seed, split, i) alone, so a larger set begins with the smaller
one. The split files and info.json come last: a folder that a crash left half-written is no data set
yet, and the same call continues it.
"""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.config import SPLITS
from uniemo_ray.data.emosketch.classes import Classes, draw_class
from uniemo_ray.data.emosketch.compose import draw_layout, render
from uniemo_ray.data.emosketch.folder import (
    README_FILE,
    SketchSettings,
    claim_folder,
    describe,
    is_finished,
    label_lists,
    put_file,
    to_json,
)
from uniemo_ray.data.emosketch.labels import (
    image_rng,
    measure_brightness,
    measure_colorfulness,
)
from uniemo_ray.store.atomic import is_temporary

logger = logging.getLogger(__name__)

_CHUNK = 50
Draw = Callable[[str, range], int]
Chunks = list[tuple[str, range]]
"""Splits and indices."""
Run = Callable[[Draw, Chunks], Iterable[int]]
"""Calls a function on every chunk, wherever it likes; yields what each returned."""


def write_sketch(
    out: str | Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int,
    size_px: int,
    classes: Classes = (),
    workers: int = 1,
    run: Run | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generate a data set, or continue a half-written one; a finished one is left as it is.

    Args:
        out: Folder; created, or empty, or an EmoSketch of these very settings.
        train: Training images; at least 1, and enough that every class has one.
        val: Validation images, at least 1.
        test: Test images, at least 1.
        seed: Seed of the set, 0 or larger.
        size_px: Side of an image.
        classes: What its labels stand for; without any they are the eight emotions.
        workers: Processes; the bytes do not depend on it.
        run: What runs the drawing instead of processes of our own.
        on_progress: Called with the numbers of images done and of all.

    Returns:
        The folder.

    Raises:
        ValueError: for impossible settings, or a folder that holds something else.
    """
    root = Path(out)
    settings = SketchSettings(train, val, test, seed, size_px, classes)
    _check_settings(settings)
    claim_folder(root, settings)
    if is_finished(root):
        logger.info("%s already holds this EmoSketch: left as it is", root)
        return root
    _make_folders(root, settings.labels)
    done, total = 0, train + val + test
    draw = partial(write_images, root, seed=settings.seed, size_px=settings.size_px, classes=settings.classes)
    run = run or partial(_run_in_processes, workers=workers)
    for size in run(draw, _chunks(settings)):
        done += size
        if on_progress:
            on_progress(done, total)
    _remove_temporaries(root)
    _write_lists(root, settings)
    return root


def write_images(
    root: Path, split: str, indices: range, *, seed: int, size_px: int, classes: Classes = ()
) -> int:
    """Write the images and annotations with these indices that are not there yet.

    Returns:
        The number of indices, written now or before.
    """
    for index in indices:
        _write_one(root, split, index, seed=seed, size_px=size_px, classes=classes)
    return len(indices)


def to_png(rgb: NDArray[np.uint8]) -> bytes:
    """PNG of an (H, W, 3) picture, stored without deflating it.

    Compressors differ between zlib builds and processors; stored bytes are the same everywhere.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _check_settings(settings: SketchSettings) -> None:
    for name in (*SPLITS, "size_px"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if settings.seed < 0:
        raise ValueError(f"seed must be 0 or larger, got {settings.seed}")
    rngs = (image_rng(settings.seed, "train", i) for i in range(min(settings.train, 1000)))
    drawn = {draw_class(rng, settings.classes).emotion for rng in rngs}
    missing = [label for label in settings.labels if label not in drawn]
    if missing:
        raise ValueError(
            f"{settings.train} training images leave no image of {', '.join(missing)}: ask for more of them"
        )


def _make_folders(root: Path, labels: Sequence[str]) -> None:
    for kind in ("image", "annotation"):
        for label in labels:
            (root / kind / label).mkdir(parents=True, exist_ok=True)


def _chunks(settings: SketchSettings) -> Chunks:
    return [
        (split, range(start, min(start + _CHUNK, settings.size(split))))
        for split in SPLITS
        for start in range(0, settings.size(split), _CHUNK)
    ]


def _run_in_processes(draw: Draw, chunks: Chunks, *, workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from (draw(*chunk) for chunk in chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, *zip(*chunks, strict=True))


def _write_one(root: Path, split: str, index: int, *, seed: int, size_px: int, classes: Classes) -> None:
    rng = image_rng(seed, split, index)
    label = draw_class(rng, classes)
    _, image_id, image, annotation = _entry(label.emotion, split, index)
    # The annotation follows its image, so where it is, the pair is whole.
    if (root / annotation).is_file():
        return
    rgb = render(draw_layout(rng, scene=label.scene, object_=label.object), size_px=size_px)
    facts = {
        "image_id": image_id,
        "emotion": label.emotion,
        "brightness": round(measure_brightness(rgb), 1),
        "colorfulness": round(measure_colorfulness(rgb), 1),
        "scene": label.scene,
        "object": [label.object],
    }
    put_file(root / image, to_png(rgb))
    put_file(root / annotation, to_json(facts))


def _entry(emotion: str, split: str, index: int) -> list[str]:
    """Emotion, image id, image path and annotation path."""
    image_id = f"{emotion}_{split}_{index:06d}"
    return [emotion, image_id, f"image/{emotion}/{image_id}.png", f"annotation/{emotion}/{image_id}.json"]


def _remove_temporaries(root: Path) -> None:
    for path in root.rglob(".*"):
        if is_temporary(path.name):
            path.unlink()


def _write_lists(root: Path, settings: SketchSettings) -> None:
    for split in SPLITS:
        rngs = (image_rng(settings.seed, split, i) for i in range(settings.size(split)))
        labels = (draw_class(rng, settings.classes) for rng in rngs)
        entries = [_entry(label.emotion, split, i) for i, label in enumerate(labels)]
        put_file(root / f"{split}.json", to_json([[emotion, *paths] for emotion, _, *paths in entries]))
    put_file(root / README_FILE, describe(settings))
    put_file(root / "info.json", to_json(label_lists(settings.labels)))
