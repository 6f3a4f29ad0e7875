"""The Ray Serve application under its short name; the code is `uniemo_ray.service.app`.

serve run serve.app:build_app                          the small model that is shipped
serve run serve.app:build_app model=runs/demo/model
serve deploy serve/config.yaml
"""

from uniemo_ray.service.app import build_app

__all__ = ["build_app"]
