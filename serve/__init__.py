"""Deployment of the service: `serve.app:build_app` and `config.yaml`. The code is `uniemo_ray.service`."""
