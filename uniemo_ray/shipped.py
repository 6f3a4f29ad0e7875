"""Where the models lie that come with the package."""

from importlib.resources import files
from pathlib import Path

SHIPPED = "tiny"
"""Name of the shipped model, wherever a model folder, a CLIP or a diffusion model can be named."""
_TINY = Path(str(files("uniemo_ray"))) / "tiny"
SHIPPED_FOLDER = _TINY / "model"
"""The model folder that was trained on EmoSketch."""
WEIGHTS = _TINY / "weights"
"""The base models under it: `clip/`, `diffusion/` and the recogniser."""
