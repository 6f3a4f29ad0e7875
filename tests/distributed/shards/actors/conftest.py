"""Random weights in the files of published networks."""

from tests.metrics.conftest import random_resnets, resnet_dir

__all__ = ["random_resnets", "resnet_dir"]
