"""The Ray Serve application under its short name; the code is `uniemo_ray.service.app`.

serve run serve.app:build_app                          serves the shipped model
serve run serve.app:build_app model=runs/demo/model
serve deploy serve/config.yaml
"""

from uniemo_ray.service.app import build_app

__all__ = ["build_app"]
