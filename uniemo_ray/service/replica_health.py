"""Whether the replicas of a deployment respond, asked beside the queue of their work.

A ping through a handle waits behind work, so it cannot tell a busy replica from a hung one. The health
check with which Serve's controller looks after a replica does not wait.
"""

import asyncio
import logging
from typing import Any

import ray
from ray.serve._private.common import ReplicaID
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S = 4.0


async def has_responsive_replica(handle: DeploymentHandle[Any]) -> bool:
    """Whether at least one replica of a deployment passes its health check within seconds."""
    checks = [asyncio.create_task(_passes(name)) for name in await asyncio.to_thread(_replicas, handle)]
    try:
        async with asyncio.timeout(RESPONSE_TIMEOUT_S):
            for check in asyncio.as_completed(checks):
                if await check:
                    return True
    except TimeoutError:
        pass
    finally:
        for task in checks:
            task.cancel()
    return False


def _replicas(handle: DeploymentHandle[Any]) -> list[str]:
    """Names of the actors of a deployment's replicas."""
    names = [str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)]
    found = [name for name in names if ReplicaID.is_full_id_str(name)]
    return [name for name in found if ReplicaID.from_full_id_str(name).deployment_id == handle.deployment_id]


async def _passes(name: str) -> bool:
    try:
        replica = await asyncio.to_thread(ray.get_actor, name, SERVE_NAMESPACE)
        await replica.check_health.remote()
    except Exception as error:  # gone meanwhile, or its check failed
        logger.warning("a replica does not respond: %s", type(error).__name__)
        return False
    return True
