"""A replica whose accelerator is lost says so, and Serve replaces it."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch

from uniemo_ray.service.deployments import (
    BatchedModels,
    Endpoint,
    GenerationDeployment,
    UnderstandingDeployment,
)
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.pool import Pool

LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class Item:
    model = "default"


def models_that_raise(error: Exception) -> BatchedModels:
    def model(items: Sequence[Item]) -> list[str]:
        raise error

    return BatchedModels(lambda name: model, Pool())


async def ask(models: BatchedModels) -> None:
    with pytest.raises(Exception, match=r"CUDA|shape"):
        await models._run_batch([Item()])


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [(LOST, True), (torch.OutOfMemoryError("CUDA out of memory"), False), (RuntimeError("shape"), False)],
)
def test_a_replica_is_ill_once_its_accelerator_is_lost(error: Exception, *, is_lost: bool) -> None:
    models = models_that_raise(error)
    models.check_health()
    asyncio.run(ask(models))
    if is_lost:
        with pytest.raises(RuntimeError, match="lost its accelerator"):
            models.check_health()
    else:
        models.check_health()


def ill() -> None:
    raise RuntimeError("this replica has lost its accelerator")


@pytest.mark.parametrize("kind", [UnderstandingDeployment, GenerationDeployment])
def test_serve_asks_the_models(kind: type) -> None:
    replica = kind.__new__(kind)
    replica.models = models_that_raise(LOST)
    replica.check_health()
    asyncio.run(ask(replica.models))
    with pytest.raises(RuntimeError, match="lost its accelerator"):
        replica.check_health()


@pytest.mark.parametrize("check", [ill, None])
def test_an_endpoint_is_as_well_as_its_own_model(check: Callable[[], None] | None) -> None:
    inline = None if check is None else InlineInference(None, max_images=1, check_health=check)
    endpoint = SimpleNamespace(inline=inline)
    if check is None:
        Endpoint.check_health(endpoint)
    else:
        with pytest.raises(RuntimeError, match="lost its accelerator"):
            Endpoint.check_health(endpoint)
