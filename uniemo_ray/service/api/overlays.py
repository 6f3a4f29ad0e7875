"""Attention maps as images that are laid over a picture."""

# gh, gw patch grid

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 256
TOP_ALPHA = 220


class Box(NamedTuple):
    """Part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def overlay_png(attention: NDArray[np.float32], colour: tuple[int, int, int]) -> bytes:
    """Draw an attention map (gh, gw) as a square PNG of one colour; its opacity follows the attention."""
    low, high = float(attention.min()), float(attention.max())
    scale = (attention - low) / (high - low) if high > low else np.zeros_like(attention)
    alpha = Image.fromarray((scale * TOP_ALPHA).astype(np.uint8)).resize(
        (SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR
    )
    overlay = Image.new("RGBA", alpha.size, (*colour, 0))
    overlay.putalpha(alpha)
    buffer = io.BytesIO()
    overlay.save(buffer, "PNG")
    return buffer.getvalue()


def centre_square(width: int, height: int) -> Box:
    """The centred square of an image, which is the part that the model sees and the overlay covers."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)
