"""The Ray Serve application.

serve run uniemo_ray.service.app:build_app                          the small model that is shipped
serve run uniemo_ray.service.app:build_app model=runs/demo/model
serve deploy serve/config.yaml
"""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from uniemo_ray.config import Settings
from uniemo_ray.inference.checksums import verify
from uniemo_ray.renamed_settings import refuse_renamed
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.deployments import Endpoint, Generation, Understanding
from uniemo_ray.service.metrics_aggregator import MetricsAggregator
from uniemo_ray.service.pool import GenerationPool, Pool
from uniemo_ray.service.settings import RETRY_AFTER_S, STORE, Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry
from uniemo_ray.shipped import SHIPPED

LOGGING = LoggingConfig(enable_access_log=False)
"""The endpoint logs its requests itself, without ids and without what was sent."""
HEALTH_CHECK_PERIOD_S = 0.5
"""How long a dead replica may go unnoticed, and its replacement not begin to load."""
LEAVING_S = 30.0
"""What a replica that is replaced has beyond its longest request."""
CONSTRUCTOR_TRIES = 3
"""With a model that cannot be loaded; then the update has failed and the old one goes on."""


class BuildArgs(Settings):
    """Arguments of the application: `key=value` of `serve run`, `args:` of a Serve config."""

    model: str = Field(SHIPPED, min_length=1)
    """Model folder: a local path on the replicas' machines, `s3://bucket/prefix`, or the shipped `tiny`."""
    models: dict[str, str] = Field(default_factory=dict)
    """Further models by the name that requests give in `model`."""
    tokens: str | None = None
    """Token file (`python -m uniemo_ray.service.tokens`); without one, only this machine is served."""
    store: str = STORE
    """Where generations are kept; on several machines a folder that all of them see, or `s3://`."""
    device: str = "cpu"
    """Torch device of the models."""
    threads: int = Field(1, ge=1)
    """CPU threads of a replica; part of what determines an image's bytes."""
    understand_micro_batch: int = Field(1, ge=1)
    """Images per pass of understanding: 1 is best on a CPU, 8 to 32 on a GPU."""
    generate_micro_batch: int = Field(1, ge=1)
    """Images per pass of the sampler; part of what determines an image's bytes."""
    endpoint_replicas: int = Field(1, ge=1)
    """Copies of the HTTP interface. Rates and concurrency are limited in each of them."""
    inline_inference: bool = True
    """Whether an endpoint understands pictures itself while it has room, which saves them a hop.

    The rest, and models other than `default`, goes to the replicas for understanding. It reserves what one of
    those does."""
    understanding: Pool = Pool()
    """Replicas for understanding."""
    generation: GenerationPool = GenerationPool()
    """Replicas for generation."""
    limits: Limits = Limits()
    """Bounds of requests."""

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, values: Any) -> Any:
        return refuse_renamed(values, {"endpoint_looks": "inline_inference"})

    @model_validator(mode="after")
    def _default_is_taken(self) -> "BuildArgs":
        if DEFAULT_MODEL in self.models or "" in self.models:
            raise ValueError(f"models must not name one {DEFAULT_MODEL!r} or '': that is what `model` gives")
        return self

    @model_validator(mode="after")
    def _batches_fill_passes(self) -> "BuildArgs":
        for name, pool, rows in (
            ("understand", self.understanding, self.understand_micro_batch),
            ("generate", self.generation, self.generate_micro_batch),
        ):
            if pool.batch_size % rows:
                raise ValueError(
                    f"batch_size {pool.batch_size} of the pool is no multiple of {name}_micro_batch {rows}: "
                    f"passes would be filled up with repeats; set it to {-(-pool.batch_size // rows) * rows}"
                )
        return self


def build_app(args: BuildArgs) -> serve.Application:
    """Typed application builder.

    Raises:
        ValueError: a model folder here is damaged; what is deployed already goes on.
    """
    registry = ModelRegistry(
        models={
            name: _checked(folder) for name, folder in {DEFAULT_MODEL: args.model, **args.models}.items()
        },
        understand_micro_batch=args.understand_micro_batch,
        generate_micro_batch=args.generate_micro_batch,
        threads=args.threads,
        device=args.device,
        max_pixels=args.limits.pixels,
        names=args.limits.names,
    )
    store = args.store if "://" in args.store else str(Path(args.store).expanduser().resolve())
    limits = args.limits
    understanding = _pooled(args.understanding, limits.understand_timeout_s)(Understanding).bind(
        registry, args.understanding
    )
    # a generation may wait as long as it may take
    generation = _pooled(args.generation, 2 * limits.generate_timeout_s)(Generation).bind(
        registry, args.generation, args.limits, store
    )
    # more than the guard lets in, so that its problem answers speak and not the proxy's plain ones
    most = args.limits.active_requests + 64
    endpoint = serve.deployment(
        num_replicas=args.endpoint_replicas,
        ray_actor_options=_reserved(args.understanding) if args.inline_inference else {"num_cpus": 0.1},
        max_ongoing_requests=most,
        max_queued_requests=most,
        max_surge_percent=100,
        # its requests end, and then the generations that it has begun
        graceful_shutdown_timeout_s=2 * (limits.generate_timeout_s + LEAVING_S),
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        logging_config=LOGGING,
    )
    return endpoint(Endpoint).bind(
        understanding,
        generation,
        inline_inference=(registry, args.understanding) if args.inline_inference else None,
        models=tuple(registry.models),
        limits=args.limits,
        store=store,
        # links are followed when it is read: a mounted secret is changed by changing one
        tokens=None if args.tokens is None else str(Path(args.tokens).expanduser().absolute()),
        aggregator=_metrics_aggregator() if args.endpoint_replicas > 1 else None,
    )


def _metrics_aggregator() -> serve.Application:
    """One replica that adds up the numbers of several endpoints."""
    aggregator = serve.deployment(
        ray_actor_options={"num_cpus": 0}, health_check_period_s=HEALTH_CHECK_PERIOD_S, logging_config=LOGGING
    )
    return aggregator(MetricsAggregator).bind()


def _pooled(pool: Pool, longest_s: float) -> Any:
    """The decorator of a model deployment whose calls take so long at most."""
    return serve.deployment(
        ray_actor_options=_reserved(pool),
        max_ongoing_requests=pool.batches_held * pool.batch_size,
        max_queued_requests=pool.queue,
        autoscaling_config={
            "min_replicas": pool.min_replicas,
            "max_replicas": max(pool.min_replicas, pool.max_replicas),
            "target_ongoing_requests": pool.batch_size,
        },
        # a new replica answers before an old one goes, and one that cannot start replaces nothing
        max_surge_percent=100,
        graceful_shutdown_timeout_s=longest_s + LEAVING_S,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        logging_config=LOGGING,
    )


def _reserved(pool: Pool) -> dict[str, float]:
    return {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}


def _checked(folder: str) -> str:
    """A model folder, made absolute and verified if it is here: replicas run elsewhere."""
    path = Path(folder).expanduser()
    if folder == SHIPPED or "://" in folder or not path.is_dir():
        return folder  # the replicas will say whether it exists
    verify(path)
    return str(path.resolve())
