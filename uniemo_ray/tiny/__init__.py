"""The tiny base models: how they are trained, packed and measured, and where they lie.

They know EmoSketch's pictures and words and nothing of emotion, as CLIP and Stable Diffusion do.
"""

from importlib.resources import files
from pathlib import Path

WEIGHTS = Path(str(files(__name__))) / "weights"
"""Where they lie: `clip/`, `diffusion/` and the recogniser."""
