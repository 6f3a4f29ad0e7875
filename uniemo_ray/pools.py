"""Pools: which machines do which part of a run, and what one process takes of them.

A pool is a kind of machine. Each step names the pool that does its work (`loop/step_tables.py`); the settings
`resources.pools` say what one of its processes takes, and the Ray labels of its machines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field, model_validator

from uniemo_ray.settings_base import Settings

if TYPE_CHECKING:
    from uniemo_ray.config import Config, ResourceConfig

PoolName = Literal["data", "features", "generate", "train"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)
Labels = Mapping[str, str]


class PoolConfig(Settings):
    """What one process of a pool takes, and where it may run. A field that is not set inherits."""

    gpus: float | None = Field(None, ge=0, le=1)
    """GPUs of one actor: 0 for none, a share such as 0.25, or 1; a training worker takes 0 or 1. Null follows
    `resources.use_gpu`. Unit: GPUs. Source: ours."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of one actor, task or training worker. Null takes `resources.cpus_per_worker`. Unit: CPUs. Source:
    ours."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory that one process reserves. Null takes `resources.memory_gb_per_actor`; of a training worker, it
    reserves none. A pool with labels must state it. Unit: GB. Source: ours."""
    actors: int | None = Field(None, ge=1)
    """Largest number of actors or tasks at a time. Null takes `resources.actors`, and `generation.actors` for
    actors that generate. The number of training workers is `resources.workers`. Unit: actors. Source:
    ours."""
    min_actors: int | None = Field(None, ge=1)
    """Smallest number of actors; work starts once they are placed. Null takes `resources.min_actors`.
    Unit: actors. Source: ours."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray labels that a machine must have, such as `{uniemo/pool: train}`. A value may be `!a`, `in(a, b)` or
    `!in(a, b)`. Source: ours."""
    fallback: list[dict[str, str]] = Field(default_factory=list)
    """Labels to try next, in this order, where no machine with `labels` can be had. Training has none.
    Source: ours."""
    price_per_node_hour: float | None = Field(None, ge=0)
    """Price of one machine of the pool for one hour, in any currency. Null takes
    `resources.price_per_node_hour`. Unit: currency per hour. Source: ours."""

    @model_validator(mode="after")
    def _fallback_needs_labels(self) -> "PoolConfig":
        if self.fallback and not self.labels:
            raise ValueError("fallback says what to try where labels are not met, but there are no labels")
        if not all(self.fallback):
            raise ValueError("fallback holds an empty entry: name labels, or leave it out")
        return self


class PoolsConfig(Settings):
    """Which machines do which part of a run."""

    data: PoolConfig = PoolConfig()
    """Reading the data set, the scorers, the rank filter, coefficients and the emotion space."""
    features: PoolConfig = PoolConfig()
    """Frozen models on images: features, names, scores, encodings, metrics of images."""
    generate: PoolConfig = PoolConfig()
    """Generation, latents and mixing."""
    train: PoolConfig = PoolConfig()
    """Both stages of training."""

    @model_validator(mode="after")
    def _training(self) -> "PoolsConfig":
        for name in ("actors", "min_actors"):
            if getattr(self.train, name) is not None:
                raise ValueError(
                    f"train.{name}: the number of training workers is resources.workers; set that"
                )
        if self.train.gpus not in (None, 0, 1):
            raise ValueError(f"train.gpus is {self.train.gpus:g}, but a training worker takes 0 or 1")
        if self.train.fallback:
            raise ValueError(
                "train.fallback: Ray Train places all workers by one set of labels; name several values in "
                "train.labels, such as in(A100,H100)"
            )
        if self.data.gpus:
            raise ValueError("data.gpus: the work of this pool uses no GPU; leave it out")
        return self


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What machines cost by the hour."""

    default: float = 0.0
    by_labels: tuple[tuple[Labels, float], ...] = ()
    """Of the first entry whose labels a machine has."""

    def of(self, labels: Labels) -> float:
        """Price of a machine with these labels."""
        return next((price for wanted, price in self.by_labels if matches(wanted, labels)), self.default)

    def __bool__(self) -> bool:
        """Whether any machine has a price."""
        return bool(self.default) or any(price for _, price in self.by_labels)


FREE = Prices()
"""Of machines whose price nobody has said."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool with all that its settings leave open filled in; what Ray is asked for."""

    name: PoolName = "features"
    cpus: int = 1
    """CPUs of one process."""
    gpus: float = 0.0
    """GPUs of one process."""
    memory_gb: float = 0.0
    """Memory of one process; 0 reserves none."""
    actors: int = 1
    """Processes at most."""
    min_actors: int = 1
    """Processes at least."""
    labels: Labels | None = None
    fallback: tuple[Labels, ...] = ()
    prices: Prices = FREE
    tf32: bool = True
    """Whether GPUs may round the factors of fp32 products."""

    @property
    def memory_bytes(self) -> int:
        """Memory of one process in bytes."""
        return int(self.memory_gb * 2**30)

    @property
    def needs(self) -> dict[str, float]:
        """What one process reserves, by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes}

    @property
    def alternatives(self) -> tuple[Labels, ...]:
        """Sets of labels by preference; one of them must match."""
        return (self.labels or {}, *self.fallback)

    def accepts(self, labels: Labels) -> bool:
        """Whether a machine with these labels belongs to the pool."""
        return any(matches(wanted, labels) for wanted in self.alternatives)

    def room_on(self, resources: Mapping[str, float]) -> int:
        """Processes that a machine with these resources takes."""
        rooms = [int(resources.get(key, 0) / amount) for key, amount in self.needs.items() if amount]
        return min(rooms, default=0)

    def selectors(self, *, besides: Labels | None = None) -> dict[str, object]:
        """Ray's options `label_selector` and `fallback_strategy`; empty where any machine will do.

        Args:
            besides: a selector that every alternative has to meet as well.
        """
        first, *others = ({**labels, **(besides or {})} for labels in self.alternatives)
        found: dict[str, object] = {"label_selector": first} if first else {}
        if others:
            found["fallback_strategy"] = [{"label_selector": other} for other in others]
        return found

    @property
    def shown(self) -> str:
        """Its name and labels, for messages."""
        return f"{self.name} ({self.shown_labels})" if self.shown_labels else self.name

    @property
    def shown_labels(self) -> str:
        """Its sets of labels, for messages; empty where any machine will do."""
        return " or ".join(
            ", ".join(f"{key}={value}" for key, value in wanted.items()) for wanted in self.alternatives
        )


ANYWHERE = Pool()
"""One CPU of any machine."""


def find_pool(config: "Config", name: PoolName) -> Pool:
    """A pool as a run's settings describe it; what they leave open follows the rest of `resources`."""
    resources = config.resources
    own: PoolConfig = getattr(resources.pools, name)
    is_training = name == "train"
    memory_gb = 0.0 if is_training else resources.memory_gb_per_actor
    most = resources.most_workers if is_training else own.actors or resources.actors
    least = resources.least_workers if is_training else own.min_actors or resources.min_actors
    share = {"data": 0.0, "train": 1.0}.get(name, resources.gpus_per_actor)
    return Pool(
        name=name,
        cpus=own.cpus or resources.cpus_per_worker,
        gpus=share * resources.use_gpu if own.gpus is None else own.gpus,
        memory_gb=own.memory_gb or memory_gb,
        actors=most,
        min_actors=min(least, most),
        labels=own.labels,
        fallback=tuple(own.fallback),
        prices=prices_of(resources),
        tf32=resources.tf32,
    )


def find_painters(config: "Config") -> Pool:
    """The pool of the actors that generate: `generation.actors`, each with a whole GPU, unless it says else.

    An actor has as many CPUs as its images' bytes were planned for, at least.
    """
    own, pool = config.resources.pools.generate, find_pool(config, "generate")
    most = own.actors or config.generation.actors
    return replace(
        pool,
        cpus=max(config.generation.threads, pool.cpus),
        gpus=float(config.resources.use_gpu) if own.gpus is None else own.gpus,
        actors=most,
        min_actors=min(own.min_actors or config.resources.min_actors, most),
    )


def prices_of(resources: "ResourceConfig") -> Prices:
    """What the machines of a run cost; the first pool whose labels a machine has tells its price."""
    pools = [getattr(resources.pools, name) for name in POOLS]
    return Prices(
        default=resources.price_per_node_hour,
        by_labels=tuple(
            (labels, pool.price_per_node_hour)
            for pool in pools
            if pool.labels and pool.price_per_node_hour is not None
            for labels in (pool.labels, *pool.fallback)
        ),
    )


def check_pool_settings(resources: "ResourceConfig") -> None:
    """Refuse pools that contradict other settings, or that Ray's autoscaler could not place.

    Raises:
        ValueError: one line that names the setting.
    """
    for name in POOLS:
        pool: PoolConfig = getattr(resources.pools, name)
        if resources.use_gpu and pool.gpus is not None:
            raise ValueError(
                f"resources.use_gpu and resources.pools.{name}.gpus both say what has a GPU: take "
                f"gpus out, or set use_gpu to false and gpus of each pool that needs one"
            )
        is_stated = "memory_gb_per_actor" in resources.model_fields_set and name != "train"
        if pool.labels and pool.memory_gb is None and not is_stated:
            raise ValueError(
                f"resources.pools.{name} has labels and no memory_gb: state the GB that one process takes, "
                f"or an autoscaler counts too many on a machine"
            )
        if pool.price_per_node_hour is not None and not pool.labels:
            raise ValueError(
                f"resources.pools.{name}.price_per_node_hour: without labels nothing tells its machines "
                f"from others; set resources.price_per_node_hour"
            )


def matches(wanted: Labels, labels: Labels) -> bool:
    """Whether labels meet Ray's selectors: `value`, `!value`, `in(a, b)`, `!in(a, b)`."""
    return all(_accepts(value, labels.get(key)) for key, value in wanted.items())


def _accepts(selector: str, label: str | None) -> bool:
    is_not, rest = selector.startswith("!"), selector.removeprefix("!")
    is_list = rest.startswith("in(") and rest.endswith(")")
    values = [value.strip() for value in rest[3:-1].split(",")] if is_list else [rest]
    return (label in values) != is_not
