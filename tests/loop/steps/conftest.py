"""Random weights in the files of published networks."""

from tests.metrics.conftest import alexnet_dir, random_alexnet

__all__ = ["alexnet_dir", "random_alexnet"]
