"""Labels of an EmoSketch image and the numbers measured on its pixels."""

# C emotions

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.config import SPLITS
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS


class Label(NamedTuple):
    """What is drawn before a picture is made; a scene and an object, always."""

    emotion: str
    scene: str
    object: str


def image_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator that makes image `index` of a split, whatever the size of the set."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def draw_label(rng: np.random.Generator) -> Label:
    """Draw an emotion uniformly, then scene and object independently given the emotion."""
    rule = load_rule()
    emotion = int(rng.integers(len(EMOTIONS)))
    scene = _draw(rng, rule.scene_given_emotion[:, emotion])
    object_ = _draw(rng, rule.object_given_emotion[:, emotion])
    return Label(EMOTIONS[emotion], rule.scenes[scene], rule.objects[object_])


def _draw(rng: np.random.Generator, probabilities: NDArray[np.float64]) -> int:
    # `rng.choice` promises no stream across numpy versions; one uniform number and a search do.
    edges = np.cumsum(probabilities)
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def measure_brightness(rgb: NDArray[np.uint8]) -> float:
    """Mean luma of an (H, W, 3) picture, 0 (black) to 1 (white), ITU-R BT.601 weights."""
    return float((rgb.reshape(-1, 3).mean(axis=0) @ np.array([0.299, 0.587, 0.114])) / 255)


def measure_colorfulness(rgb: NDArray[np.uint8]) -> float:
    """Colourfulness M of Hasler and Suesstrunk (2003), as a share of their "extremely colourful" 109.

    M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), with rg = R - G and
    yb = (R + G) / 2 - B in 0 to 255; cut at 1.
    """
    red, green, blue = rgb.reshape(-1, 3).astype(np.float64).T
    rg, yb = red - green, (red + green) / 2 - blue
    spread = np.sqrt(rg.var() + yb.var())
    return float(min(1.0, (spread + 0.3 * np.hypot(rg.mean(), yb.mean())) / 109))
