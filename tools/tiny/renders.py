"""Captioned renders for the base models: scene and object uniform and independent, no emotion."""

# M renders, H = W = size_px

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.data.emosketch.compose import draw_layout, render
from uniemo_ray.data.emosketch.rule import Rule, load_rule
from uniemo_ray.store.atomic import write_atomically

NONE = -1
BARE_SHARE = 0.15
"""Share of renders without an object, and the same share without a scene."""


@dataclass(frozen=True, eq=False)
class Renders:
    """A block of pictures and what is on them."""

    pixels: NDArray[np.uint8]
    """(M, H, W, 3)."""
    scenes: NDArray[np.int64]
    """(M,) index into the rule's scenes, `NONE` for a bare object."""
    objects: NDArray[np.int64]
    """(M,) index into the rule's objects, `NONE` for a bare scene."""
    boxes: NDArray[np.float32]
    """(M, 3) centre x, centre y and side of the object as shares of the picture, zeros without one."""

    def __len__(self) -> int:
        return len(self.pixels)

    def save(self, path: Path) -> None:
        """Write as one uncompressed .npz (readable without pickle), atomically."""
        with write_atomically(path) as file:
            np.savez(file, pixels=self.pixels, scenes=self.scenes, objects=self.objects, boxes=self.boxes)

    @staticmethod
    def load(path: Path) -> "Renders":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return Renders(file["pixels"], file["scenes"], file["objects"], file["boxes"])


def draw_renders(indices: range, *, seed: int, size_px: int = 64, bare_share: float = BARE_SHARE) -> Renders:
    """Draw the renders with these indices; render i depends on (seed, i) alone."""
    rule = load_rule()
    rows = [_draw_one(i, seed=seed, size_px=size_px, bare_share=bare_share, rule=rule) for i in indices]
    pixels, scenes, objects, boxes = zip(*rows, strict=True)
    return Renders(
        np.stack(pixels),
        np.array(scenes, dtype=np.int64),
        np.array(objects, dtype=np.int64),
        np.array(boxes, dtype=np.float32),
    )


Row = tuple[NDArray[np.uint8], int, int, tuple[float, float, float]]


def _draw_one(index: int, *, seed: int, size_px: int, bare_share: float, rule: Rule) -> Row:
    rng = np.random.default_rng([seed, index])
    kind = rng.random()
    scene = NONE if kind < bare_share else int(rng.integers(len(rule.scenes)))
    object_ = NONE if kind > 1 - bare_share else int(rng.integers(len(rule.objects)))
    layout = draw_layout(
        rng,
        scene=None if scene == NONE else rule.scenes[scene],
        object_=None if object_ == NONE else rule.objects[object_],
    )
    placed = layout.object
    box = (placed.x / 100, placed.y / 100, placed.side / 100) if placed else (0.0, 0.0, 0.0)
    return render(layout, size_px=size_px), scene, object_, box


def join_renders(parts: list[Renders]) -> Renders:
    """Concatenate blocks in order."""
    return Renders(
        np.concatenate([p.pixels for p in parts]),
        np.concatenate([p.scenes for p in parts]),
        np.concatenate([p.objects for p in parts]),
        np.concatenate([p.boxes for p in parts]),
    )
