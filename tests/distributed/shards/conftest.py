"""The tiny random model folder of the inference tests."""

from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]
