"""What KubeRay's operator, or Ray below it, refuses in a cluster's spec though its schema allows it."""

import re
from collections.abc import Callable, Iterator

from tools.cluster_check.documents import Cluster, groups
from tools.cluster_check.faults import Document, Fault

LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
TOKENS_SINCE, PRIORITY_SINCE = (2, 52), (2, 56)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NUMBERS = ("num-cpus", "num-gpus", "memory", "resources")
_REDIS_VARIABLES = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD")


def check_cluster(cluster: Cluster, file: str, ray_version: str) -> list[Fault]:
    """Every broken rule of one cluster; `ray_version` is the one that the image holds."""
    found = [what for rule in RULES for what in rule(cluster)]
    found += _version(cluster, ray_version)
    return [Fault(file, cluster.where, what) for what in found]


def version_of(cluster: Cluster) -> tuple[int, ...]:
    """`rayVersion` as numbers; empty where it is none."""
    found = re.match(r"(\d+)\.(\d+)", str(cluster.spec.get("rayVersion", "")))
    return tuple(map(int, found.groups())) if found else ()


def head_spec(cluster: Cluster) -> Document:
    """The Pod of the head."""
    return dict(((cluster.spec.get("headGroupSpec") or {}).get("template") or {}).get("spec") or {})


def _version(cluster: Cluster, ray_version: str) -> Iterator[str]:
    if cluster.spec.get("rayVersion") != ray_version:
        yield f"rayVersion is {cluster.spec.get('rayVersion')}, and constraints.txt has Ray {ray_version}"


def _name(cluster: Cluster) -> Iterator[str]:
    longest = LONGEST_NAME[cluster.kind]
    if len(cluster.name) > longest:
        yield f"the name has {len(cluster.name)} characters, and {cluster.kind} takes {longest}"
    if not _DNS_1035.fullmatch(cluster.name):
        yield "the name must be small letters, digits and '-', with a letter first"


def _token(cluster: Cluster) -> Iterator[str]:
    if (cluster.spec.get("authOptions") or {}).get("mode") != "token":
        yield "authOptions.mode is not token: whoever reaches the head could run code on it"
    elif version_of(cluster) < TOKENS_SINCE:
        yield "authOptions.mode token needs rayVersion 2.52 or later"
    if (cluster.spec.get("authOptions") or {}).get("enableK8sTokenAuth") and cluster.kind != "RayCluster":
        yield f"authOptions.enableK8sTokenAuth is refused for a {cluster.kind}"


def _autoscaler(cluster: Cluster) -> Iterator[str]:
    is_on = bool(cluster.spec.get("enableInTreeAutoscaling"))
    is_v2 = (cluster.spec.get("autoscalerOptions") or {}).get("version") == "v2"
    if is_on and not is_v2:
        yield "autoscalerOptions.version is not v2"
    for group in groups(cluster):
        name = group.get("groupName")
        if "idleTimeoutSeconds" in group and not (is_on and is_v2):
            yield f"group {name}: idleTimeoutSeconds needs the autoscaler v2"
        if "priority" in group and not (is_on and is_v2 and version_of(cluster) >= PRIORITY_SINCE):
            yield f"group {name}: priority needs the autoscaler v2 and rayVersion 2.56 or later"


def _restart(cluster: Cluster) -> Iterator[str]:
    if not cluster.spec.get("enableInTreeAutoscaling"):
        return
    pods = [("head", head_spec(cluster))]
    pods += [(str(g.get("groupName")), (g.get("template") or {}).get("spec") or {}) for g in groups(cluster)]
    for name, pod in pods:
        if pod.get("restartPolicy", "Never") != "Never":
            yield f"{name}: restartPolicy {pod['restartPolicy']}: the autoscaler v2 needs Never, or none"


def _start_params(cluster: Cluster) -> Iterator[str]:
    parts = [("head", cluster.spec.get("headGroupSpec") or {})]
    parts += [(f"group {group.get('groupName')}", group) for group in groups(cluster)]
    for name, part in parts:
        params = part.get("rayStartParams") or {}
        twice = [key for key in _NUMBERS if key in params]
        if twice and part.get("resources"):
            yield f"{name}: {twice[0]} in rayStartParams and in resources: keep one"
        if "labels" in params:
            yield f"{name}: labels belong beside rayStartParams and not inside"
    if str((parts[0][1].get("rayStartParams") or {}).get("num-cpus")) != "0":
        yield "head: rayStartParams.num-cpus is not '0', so work would run beside the driver"


def _sizes(cluster: Cluster) -> Iterator[str]:
    names = [str(group.get("groupName")) for group in groups(cluster)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"group {name} is there twice"
    for group in groups(cluster):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if not least <= group.get("replicas", least) <= most:
            yield f"group {group.get('groupName')}: replicas are not from {least} to {most}"


def _redis(cluster: Cluster) -> Iterator[str]:
    options = cluster.spec.get("gcsFaultToleranceOptions")
    if options and cluster.kind == "RayJob":
        yield "gcsFaultToleranceOptions do not help a RayJob: its driver goes with the head"
    if options and options.get("redisAddress") and options.get("storage"):
        yield "gcsFaultToleranceOptions: redisAddress and storage exclude each other"
    for container in head_spec(cluster).get("containers") or []:
        for variable in container.get("env") or []:
            if variable.get("name") in _REDIS_VARIABLES:
                yield f"head: {variable['name']} as a variable: use gcsFaultToleranceOptions"


RULES: tuple[Callable[[Cluster], Iterator[str]], ...] = (
    _name,
    _token,
    _autoscaler,
    _restart,
    _start_params,
    _sizes,
    _redis,
)
