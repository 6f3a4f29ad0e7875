"""The Ray Serve application.

serve run uniemo_ray.service.app:build_app                          serves the shipped model
serve run uniemo_ray.service.app:build_app model=runs/demo/model
serve deploy serve/config.yaml
"""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from uniemo_ray.inference.checksums import verify
from uniemo_ray.renamed_settings import refuse_renamed
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.deployments import Endpoint, GenerationDeployment, UnderstandingDeployment
from uniemo_ray.service.metrics_aggregator import MetricsAggregator
from uniemo_ray.service.pool import GenerationPool, Pool
from uniemo_ray.service.settings import RETRY_AFTER_S, STORE, Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry
from uniemo_ray.settings_base import Settings
from uniemo_ray.shipped import SHIPPED

LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)
"""The log of every replica: one JSON object a line. Serve's access log is off, because the endpoint logs its
requests itself, without the ids of generations and without contents."""
HEALTH_CHECK_PERIOD_S = 0.5
"""Longest time until a dead replica is noticed and its replacement starts to load."""
SHUTDOWN_MARGIN_S = 30.0
"""Time that a replaced replica has to stop, beyond its longest request."""
CONSTRUCTOR_TRIES = 3
"""Attempts to load a model. After the last one the update has failed, and the old version goes on."""


class BuildArgs(Settings):
    """Arguments of the application: `key=value` of `serve run`, `args:` of a Serve config."""

    model: str = Field(SHIPPED, min_length=1)
    """Model folder: a local path on the replicas' machines, `s3://bucket/prefix`, or the shipped `tiny`."""
    models: dict[str, str] = Field(default_factory=dict)
    """Model folder by name, for further models. Requests choose one with `model`."""
    tokens: str | None = None
    """Token file (`python -m uniemo_ray.service.tokens`). Without one, only this machine is served."""
    store: str = STORE
    """Folder of generations. Several machines need a folder that all of them can reach, or `s3://`."""
    device: str = "cpu"
    """Torch device of the models."""
    threads: int = Field(1, ge=1)
    """CPU threads of a replica. They affect the bytes of generated images."""
    understand_micro_batch: int = Field(1, ge=1)
    """Images per pass of understanding. 1 is fastest on a CPU, 8 to 32 on a GPU."""
    generate_micro_batch: int = Field(1, ge=1)
    """Images per pass of the sampler. It affects the bytes of generated images."""
    endpoint_replicas: int = Field(1, ge=1)
    """Replicas of the HTTP API. Each of them limits rates and concurrency by itself."""
    inline_inference: bool = True
    """Whether an endpoint understands images itself while it has room, which saves a call to a replica.

    Overflow, and requests for models other than `default`, go to the replicas for understanding. With this
    setting an endpoint reserves as much as one of those replicas."""
    understanding: Pool = Pool()
    """Replicas for understanding."""
    generation: GenerationPool = GenerationPool()
    """Replicas for generation."""
    limits: Limits = Limits()
    """Limits of requests."""

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, values: Any) -> Any:
        return refuse_renamed(values, {"endpoint_looks": "inline_inference"})

    @model_validator(mode="after")
    def _default_is_reserved(self) -> "BuildArgs":
        if DEFAULT_MODEL in self.models or "" in self.models:
            raise ValueError(
                f"models must not contain {DEFAULT_MODEL!r} or '': `model` sets the default model"
            )
        return self

    @model_validator(mode="after")
    def _batches_fill_passes(self) -> "BuildArgs":
        for name, pool, rows in (
            ("understand", self.understanding, self.understand_micro_batch),
            ("generate", self.generation, self.generate_micro_batch),
        ):
            if pool.batch_size % rows:
                raise ValueError(
                    f"batch_size {pool.batch_size} is not a multiple of {name}_micro_batch {rows}, so passes "
                    f"would be padded: set it to {-(-pool.batch_size // rows) * rows}"
                )
        return self


def build_app(args: BuildArgs) -> serve.Application:
    """Build the application from its arguments.

    Raises:
        ValueError: a local model folder is damaged. A version that is already deployed goes on.
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
    understanding = _pooled("Understanding", args.understanding, limits.understand_timeout_s)(
        UnderstandingDeployment
    ).bind(registry, args.understanding, limits)
    # a generation may wait as long as it may run
    generation = _pooled("Generation", args.generation, 2 * limits.generate_timeout_s)(
        GenerationDeployment
    ).bind(registry, args.generation, args.limits, store)
    # more than the rate limiter admits, so that callers get its JSON problems and not the proxy's plain text
    max_requests = args.limits.active_requests + 64
    endpoint = serve.deployment(
        num_replicas=args.endpoint_replicas,
        ray_actor_options=_reserved(args.understanding) if args.inline_inference else {"num_cpus": 0.1},
        max_ongoing_requests=max_requests,
        max_queued_requests=max_requests,
        max_surge_percent=100,
        # time for its open requests, and then for the generations that it has started
        graceful_shutdown_timeout_s=2 * (limits.generate_timeout_s + SHUTDOWN_MARGIN_S),
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        logging_config=LOGGING,
    )
    return endpoint(Endpoint).bind(
        understanding,
        generation,
        inline_inference=(registry, args.understanding) if args.inline_inference else None,
        registry=registry,
        limits=args.limits,
        store=store,
        # symbolic links are followed at every read: Kubernetes changes a mounted secret by changing a link
        tokens=None if args.tokens is None else str(Path(args.tokens).expanduser().absolute()),
        aggregator=_metrics_aggregator() if args.endpoint_replicas > 1 else None,
    )


def _metrics_aggregator() -> serve.Application:
    """One replica that adds up the metrics of several endpoints."""
    aggregator = serve.deployment(
        ray_actor_options={"num_cpus": 0}, health_check_period_s=HEALTH_CHECK_PERIOD_S, logging_config=LOGGING
    )
    return aggregator(MetricsAggregator).bind()


def _pooled(name: str, pool: Pool, longest_s: float) -> Any:
    """The decorator of a model deployment whose calls take at most `longest_s`."""
    return serve.deployment(
        name=name,
        ray_actor_options=_reserved(pool),
        max_ongoing_requests=pool.batches_held * pool.batch_size,
        max_queued_requests=pool.queue,
        autoscaling_config={
            "min_replicas": pool.min_replicas,
            "max_replicas": max(pool.min_replicas, pool.max_replicas),
            "target_ongoing_requests": pool.batch_size,
        },
        # an old replica is stopped only when a new one answers, so one that cannot start replaces nothing
        max_surge_percent=100,
        graceful_shutdown_timeout_s=longest_s + SHUTDOWN_MARGIN_S,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        logging_config=LOGGING,
    )


def _reserved(pool: Pool) -> dict[str, Any]:
    labels = {"label_selector": pool.labels} if pool.labels else {}
    return {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus, **labels}


def _checked(folder: str) -> str:
    """The absolute path of a model folder, verified if it is on this machine."""
    path = Path(folder).expanduser()
    if folder == SHIPPED or "://" in folder or not path.is_dir():
        return folder  # the replicas check it
    verify(path)
    return str(path.resolve())
