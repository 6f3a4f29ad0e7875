"""The Ray Serve application.

serve run serve.app:build_app model=runs/demo/model
"""

import io
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from serve.api import GenerateRequest, make_api
from serve.limits import Limits
from uniemo_ray import UniEmo, __version__
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.inference.uniemo import UnderstandResult


class BuildArgs(BaseModel):
    """Arguments of the application: `key=value` of `serve run`, `args:` of a Serve config."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """Model folder: a local path that exists on the replicas' machines, or `s3://bucket/prefix`."""
    replicas: int = Field(1, ge=1)
    """Copies of the model."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPUs that a replica reserves."""
    max_ongoing_requests: int = Field(8, ge=1)
    """Requests inside one replica; further ones wait in the queue."""
    max_queued_requests: int = Field(64, ge=1)
    """Waiting requests per proxy; further ones are answered with 503."""


class ModelBackend:
    """A model folder that answers one request at a time."""

    def __init__(self, folder: str) -> None:
        self.model = UniEmo.from_pretrained(folder)
        self.turn = threading.Lock()

    def understand(self, image: Image) -> UnderstandResult:
        """Emotions, scene and objects of one image."""
        with self.turn:
            return self.model.understand([image])[0]

    def generate(self, request: GenerateRequest) -> bytes:
        """One PNG with its provenance as text."""
        buffer = io.BytesIO()
        with self.turn:
            picture = self.model.generate(
                request.emotion,
                request.prompt,
                seed=request.seed,
                steps=request.steps,
                guidance=request.guidance,
            )[0]
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def describe(self) -> dict[str, Any]:
        """The model's fingerprint, card and emotions."""
        parts = self.model.parts
        return {
            "fingerprint": parts.fingerprint,
            "emotions": list(EMOTIONS),
            "size_px": parts.config.diffusion.size_px,
            "card": parts.card,
            "uniemo_ray": __version__,
        }


@serve.ingress()
class Endpoint:
    """One replica: the model and the HTTP interface in one process, so that a request takes no extra hop."""

    def __init__(self, folder: str) -> None:
        self.backend = ModelBackend(folder)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the model is loaded."""
        return make_api(self.backend, limits=Limits())

    def describe(self) -> dict[str, Any]:
        """The model's description, for calls by handle."""
        return self.backend.describe()


def build_app(args: BuildArgs) -> serve.Application:
    """Typed application builder.

    A relative model path means one beside the caller; it is made absolute, as replicas run elsewhere.
    """
    is_local = "://" not in args.model and Path(args.model).is_dir()
    folder = str(Path(args.model).resolve()) if is_local else args.model
    make_deployment = serve.deployment(
        num_replicas=args.replicas,
        ray_actor_options={"num_cpus": args.cpus_per_replica},
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
    )
    return make_deployment(Endpoint).bind(folder)
