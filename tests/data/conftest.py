"""A small folder in EmoSet's layout, to be broken by the tests."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uniemo_ray.emotions import EMOTIONS

SIZES = {"train": 2, "val": 1, "test": 1}  # images per emotion


def picture(seed: int = 0, *, size: tuple[int, int] = (20, 16), kind: str = "JPEG", **options: Any) -> bytes:
    """An encoded RGB picture, width x height."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """`picture`."""
    return picture


@pytest.fixture
def emoset(tmp_path: Path) -> Path:
    """32 good images: 2 train, 1 val, 1 test per emotion."""
    root = tmp_path / "emoset"
    seeds = itertools.count()
    for split, count in SIZES.items():
        entries = []
        for emotion in EMOTIONS:
            for number in range(count):
                image_id = f"{emotion}_{split}{number}"
                entry = [emotion, f"image/{emotion}/{image_id}.jpg", f"annotation/{emotion}/{image_id}.json"]
                facts = {
                    "image_id": image_id,
                    "emotion": emotion,
                    "scene": "Snowy Mountain",
                    "object": ["Tree", "Polar bear"],
                    "brightness": 0.5,
                    "colorfulness": 0.3,
                }
                for path in entry[1:]:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / entry[1]).write_bytes(picture(next(seeds)))
                (root / entry[2]).write_text(json.dumps(facts))
                entries.append(entry)
        (root / f"{split}.json").write_text(json.dumps(entries))
    labels = {
        "emotion": EMOTIONS,
        "scene": ["snowy_mountain", "beach"],
        "object": ["polar bear", "tree", "Toy"],
    }
    info = {kind: {"label2idx": {name: i for i, name in enumerate(names)}} for kind, names in labels.items()}
    (root / "info.json").write_text(json.dumps(info))
    return root
