"""What every Pod of these manifests keeps to: rights, sizes, and machines that are what the labels say."""

from collections.abc import Iterator
from typing import NamedTuple

from tools.cluster_check.documents import Cluster, clusters, groups, name_of
from tools.cluster_check.faults import Document, Fault
from tools.cluster_check.quantities import number

SHARED_MEMORY = 0.3
"""Least size of /dev/shm, as a share of the Pod's memory: Ray's object store lies there."""
USER = 1000
GPU = "nvidia.com/gpu"
_MARKET = "ray.io/market-type"
_SPOT = {"karpenter.sh/capacity-type": "spot", "cloud.google.com/gke-spot": "true"}
_CLOUDS = ("karpenter.sh/", "cloud.google.com/")


class Pod(NamedTuple):
    """A Pod of a document, by its place there."""

    place: str
    spec: Document
    is_head: bool


def check_pods(docs: list[Document], file: str) -> list[Fault]:
    """Every broken rule of the Pods of all Ray clusters and submitters."""
    maps = {doc["metadata"]["name"] for doc in docs if doc.get("kind") == "ConfigMap"}
    accounts = {doc["metadata"]["name"] for doc in docs if doc.get("kind") == "ServiceAccount"}
    faults = []
    for cluster in clusters(docs):
        for pod in _pods(cluster):
            lines = [*_rights(pod), *_containers(pod), *_references(pod, maps, accounts)]
            faults += [Fault(file, f"{cluster.where}: {pod.place}", line) for line in lines]
        for group in groups(cluster):
            faults += [
                Fault(file, f"{cluster.where}: {group.get('groupName')}", line) for line in _market(group)
            ]
    for doc in docs:
        submitter = (
            (doc.get("spec") or {}).get("submitterPodTemplate") if doc.get("kind") == "RayJob" else None
        )
        if submitter:
            pod = Pod("submitter", submitter.get("spec") or {}, is_head=False)
            lines = [*_rights(pod), *_references(pod, maps, accounts), *_resources(pod)]
            faults += [Fault(file, f"{name_of(doc)}: submitter", line) for line in lines]
    return faults


def _pods(cluster: Cluster) -> Iterator[Pod]:
    parts = [("head", cluster.spec.get("headGroupSpec") or {})]
    parts += [(str(group.get("groupName")), group) for group in groups(cluster)]
    for name, part in parts:
        yield Pod(name, (part.get("template") or {}).get("spec") or {}, is_head=name == "head")


def _rights(pod: Pod) -> Iterator[str]:
    """Pod Security "restricted", and no token of the account where nothing needs one."""
    context = pod.spec.get("securityContext") or {}
    wanted = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    for key, value in wanted.items():
        if context.get(key) != value:
            yield f"securityContext.{key} is not {str(value).lower()}"
    if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "securityContext.seccompProfile.type is not RuntimeDefault"
    for container in pod.spec.get("containers") or []:
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container.get('name')}: allowPrivilegeEscalation is not false"
        if "ALL" not in ((own.get("capabilities") or {}).get("drop") or []):
            yield f"{container.get('name')}: capabilities.drop is not [ALL]"
    if not pod.is_head and pod.spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"


def _containers(pod: Pod) -> Iterator[str]:
    yield from _resources(pod)
    volumes = {volume.get("name"): volume for volume in pod.spec.get("volumes") or []}
    for container in pod.spec.get("containers") or []:
        mounts = {mount.get("mountPath"): mount.get("name") for mount in container.get("volumeMounts") or []}
        for path in ("/tmp", "/dev/shm"):
            if mounts.get(path) not in volumes:
                yield f"no volume at {path}"
        memory = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        shared = (volumes.get(mounts.get("/dev/shm")) or {}).get("emptyDir") or {}
        if memory and shared:
            least = SHARED_MEMORY * number(memory)
            if shared.get("medium") != "Memory" or number(shared.get("sizeLimit", 0)) < least:
                yield f"/dev/shm is not in memory with 30 % of the Pod's {memory}: set medium and sizeLimit"
    containers = pod.spec.get("containers") or []
    has_gpu = any(GPU in (container.get("resources") or {}).get("limits", {}) for container in containers)
    tolerated = [toleration.get("key") for toleration in pod.spec.get("tolerations") or []]
    if has_gpu and GPU not in tolerated:
        yield f"asks for a GPU and does not tolerate the taint {GPU}"


def _resources(pod: Pod) -> Iterator[str]:
    for container in pod.spec.get("containers") or []:
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        if limits != resources.get("requests"):
            yield f"{container.get('name')}: requests are not equal to limits"
        for key in ("cpu", "memory", "ephemeral-storage"):
            if key not in limits:
                yield f"{container.get('name')}: no limit of {key}"


def _references(pod: Pod, maps: set[str], accounts: set[str]) -> Iterator[str]:
    """ConfigMaps and accounts that the build must hold; Secrets and claims are the user's."""
    account = pod.spec.get("serviceAccountName")
    if account not in accounts:
        yield f"there is no ServiceAccount {account}"
    named = [(volume.get("configMap") or {}).get("name") for volume in pod.spec.get("volumes") or []]
    for container in pod.spec.get("containers") or []:
        named += [(source.get("configMapRef") or {}).get("name") for source in container.get("envFrom") or []]
    for name in filter(None, named):
        if name not in maps:
            yield f"there is no ConfigMap {name}"


def _market(group: Document) -> Iterator[str]:
    """The label that Ray sees, and the machines that the cloud gives."""
    selector = (((group.get("template") or {}).get("spec") or {}).get("nodeSelector")) or {}
    if not any(key.startswith(_CLOUDS) for key in selector):
        return
    is_spot = any(selector.get(key) == value for key, value in _SPOT.items())
    label = (group.get("labels") or {}).get(_MARKET)
    if is_spot != (label == "spot"):
        yield f"label {_MARKET} is {label}, and nodeSelector asks for {'spot' if is_spot else 'on-demand'}"
