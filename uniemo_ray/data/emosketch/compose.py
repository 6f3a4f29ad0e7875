"""Compose one EmoSketch picture from the hand-written SVG art and rasterise it with resvg.

A `Layout` holds every random choice, so that a picture is a function of its layout alone and the
same at any size up to resolution.
"""

import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCENE_WIDTH, SCENE_HEIGHT = 150.0, 120.0
# Multiplied into the picture: R, G, B.
TIMES_OF_DAY: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.90, 0.84),
    "dusk": (0.92, 0.80, 0.90),
    "night": (0.60, 0.66, 0.86),
}
CLUTTER: tuple[str, ...] = ("rock", "bush", "cloud_puff", "crate", "leaf", "puddle")


@dataclass(frozen=True)
class Placement:
    """One piece of art in picture units (the picture is 100 x 100, y down)."""

    name: str
    x: float
    """Centre."""
    y: float
    """Centre."""
    side: float
    """Side of its square box."""
    angle: float = 0.0
    """Degrees."""
    is_mirrored: bool = False
    hue: float = 0.0
    """Hue rotation in degrees."""


@dataclass(frozen=True)
class Layout:
    """Every choice that makes one picture. `scene` or `object` may be None: a bare picture."""

    scene: str | None
    object: Placement | None
    window: tuple[float, float, float]
    """Left, top and side of the scene's visible window, in scene units (150 x 120)."""
    is_mirrored: bool
    scene_hue: float
    background: str
    """Fill colour where there is no scene."""
    time_of_day: str
    clutter_behind: tuple[Placement, ...]
    clutter_before: tuple[Placement, ...]
    noise: float
    """Standard deviation of pixel noise, as a share of full scale."""
    noise_seed: int


def draw_layout(rng: np.random.Generator, *, scene: str | None, object_: str | None) -> Layout:
    """Draw placement, scale, hue, time of day, clutter, occlusion and noise for a picture."""
    side = rng.uniform(88, 118)
    placement = _draw_object(rng, object_) if object_ else None
    before = _draw_occluder(rng, placement) if placement and rng.random() < 0.3 else ()
    return Layout(
        scene=scene,
        object=placement,
        window=(rng.uniform(0, SCENE_WIDTH - side), rng.uniform(0, SCENE_HEIGHT - side), side),
        is_mirrored=bool(rng.random() < 0.5),
        scene_hue=rng.uniform(-14, 14),
        background=f"hsl({rng.integers(0, 360)},{rng.integers(8, 40)}%,{rng.integers(45, 90)}%)",
        time_of_day=str(rng.choice(list(TIMES_OF_DAY), p=[0.55, 0.15, 0.15, 0.15])),
        clutter_behind=tuple(_draw_clutter(rng) for _ in range(rng.integers(0, 3))),
        clutter_before=before,
        noise=rng.uniform(0.0, 0.012),
        noise_seed=int(rng.integers(0, 2**63)),
    )


def _draw_object(rng: np.random.Generator, name: str) -> Placement:
    side = rng.uniform(44, 62)
    slack = side / 2 - 5
    return Placement(
        name,
        x=rng.uniform(slack, 100 - slack),
        y=rng.uniform(max(slack, 50), 100 - slack),
        side=side,
        angle=rng.uniform(-10, 10),
        is_mirrored=bool(rng.random() < 0.5),
        hue=rng.uniform(-14, 14),
    )


def _draw_clutter(rng: np.random.Generator) -> Placement:
    return Placement(
        str(rng.choice(CLUTTER)),
        x=rng.uniform(5, 95),
        y=rng.uniform(55, 97),
        side=rng.uniform(9, 18),
        is_mirrored=bool(rng.random() < 0.5),
        hue=rng.uniform(-40, 40),
    )


def _draw_occluder(rng: np.random.Generator, object_: Placement) -> tuple[Placement, ...]:
    piece = _draw_clutter(rng)
    edge = object_.side * 0.42
    side = object_.side * rng.uniform(0.25, 0.4)
    x, y = object_.x + rng.choice([-1, 1]) * edge, object_.y + rng.uniform(0.5, 1.0) * edge
    return (Placement(piece.name, x=x, y=y, side=side, is_mirrored=piece.is_mirrored, hue=piece.hue),)


@cache
def _art(kind: str, name: str) -> str:
    """Inner markup of one SVG file, without its root element."""
    text = (files(__package__) / "art" / kind / f"{name}.svg").read_text(encoding="utf-8")
    start = text.index(">", text.index("<svg")) + 1
    return text[start : text.rindex("</svg>")]


def _place(kind: str, piece: Placement) -> str:
    scale = piece.side / 100
    flip = -scale if piece.is_mirrored else scale
    return (
        f'<g filter="{_hue_filter(piece.hue)}" transform="translate({piece.x:.3f} {piece.y:.3f}) '
        f'rotate({piece.angle:.3f}) scale({flip:.5f} {scale:.5f}) translate(-50 -50)">'
        f"{_art(kind, piece.name)}</g>"
    )


def _hue_filter(degrees: float) -> str:
    return f"hue-rotate({degrees:.2f}deg)"


def _scene_markup(layout: Layout) -> str:
    if layout.scene is None:
        return f'<rect width="100" height="100" fill="{layout.background}"/>'
    left, top, side = layout.window
    scale = 100 / side
    flip = f"translate({SCENE_WIDTH:g} 0) scale(-1 1)" if layout.is_mirrored else ""
    return (
        f'<g filter="{_hue_filter(layout.scene_hue)}"><g transform="scale({scale:.5f}) '
        f'translate({-left:.3f} {-top:.3f}) {flip}">{_art("scenes", layout.scene)}</g></g>'
    )


def to_svg(layout: Layout) -> str:
    """The whole picture as one SVG document, 100 x 100 units."""
    parts = [_scene_markup(layout)]
    parts += [_place("clutter", piece) for piece in layout.clutter_behind]
    if layout.object:
        parts.append(_place("objects", layout.object))
    parts += [_place("clutter", piece) for piece in layout.clutter_before]
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{body}</svg>'


def render(layout: Layout, *, size_px: int) -> NDArray[np.uint8]:
    """Rasterise a layout to (size_px, size_px, 3) RGB, with its light and its noise."""
    import resvg_py  # a compiled wheel, needed only where pictures are made

    png = bytes(resvg_py.svg_to_bytes(svg_string=to_svg(layout), width=size_px, skip_system_fonts=True))
    rgb = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32)
    rgb = rgb * np.array(TIMES_OF_DAY[layout.time_of_day], dtype=np.float32)
    noise = np.random.default_rng(layout.noise_seed).standard_normal(rgb.shape, dtype=np.float32)
    return np.clip(np.rint(rgb + noise * (255 * layout.noise)), 0, 255).astype(np.uint8)
