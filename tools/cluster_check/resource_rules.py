"""What KubeRay's operator and Kubernetes refuse in a RayJob, a RayService or a disruption budget."""

import re
from collections.abc import Iterator

from tools.cluster_check.documents import SPECS, name_of
from tools.cluster_check.faults import Document, Fault

MOST_KUEUE_GROUPS = 7
MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
QUEUE = "kueue.x-k8s.io/queue-name"
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_DURATION = re.compile(r"(\d+(\.\d+)?(ms|s|m|h))+")
_TIMEOUT = "ray.io/initializing-timeout"


def check_resource(doc: Document, file: str) -> list[Fault]:
    """Every broken rule of one document."""
    rules = {
        "RayJob": (_deletion, _suspended, _submission, _limits, _queue),
        "RayService": (_service, _upgrade),
        "PodDisruptionBudget": (_budget,),
    }.get(str(doc.get("kind")), ())
    return [Fault(file, name_of(doc), what) for rule in rules for what in rule(doc)]


def _spec(doc: Document) -> Document:
    return dict(doc.get("spec") or {})


def _cluster(doc: Document) -> Document:
    return dict(_spec(doc).get(SPECS[doc["kind"]]) or {})


def _deletion(doc: Document) -> Iterator[str]:
    spec = _spec(doc)
    rules = (spec.get("deletionStrategy") or {}).get("deletionRules") or []
    if "deletionStrategy" in spec and "shutdownAfterJobFinishes" in spec:
        yield "deletionStrategy and shutdownAfterJobFinishes exclude each other"
    if "deletionStrategy" not in spec and not spec.get("shutdownAfterJobFinishes"):
        yield "neither deletionStrategy nor shutdownAfterJobFinishes: the cluster would stay for ever"
    latest: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for rule in rules:
        condition, policy = rule.get("condition") or {}, rule.get("policy")
        named = [key for key in ("jobStatus", "jobDeploymentStatus") if key in condition]
        if len(named) != 1:
            yield f"deletion rule {policy}: name jobStatus or jobDeploymentStatus, and not both"
            continue
        if policy == "DeleteWorkers" and _cluster(doc).get("enableInTreeAutoscaling"):
            yield "deletion rule DeleteWorkers is refused with autoscaling"
        if policy in _ORDER:
            key = (named[0], str(condition[named[0]]))
            latest.setdefault(key, []).append((_ORDER.index(policy), int(condition.get("ttlSeconds", 0))))
    for (name, value), found in latest.items():
        places = [place for place, _ in found]
        if len(places) != len(set(places)):
            yield f"two deletion rules of the same policy for {name} {value}"
        times = [seconds for _, seconds in sorted(found)]
        if times != sorted(times):
            yield f"deletion rules for {name} {value}: ttlSeconds must not fall along workers, cluster, job"


def _suspended(doc: Document) -> Iterator[str]:
    spec = _spec(doc)
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend is refused without shutdownAfterJobFinishes"


def _submission(doc: Document) -> Iterator[str]:
    spec = _spec(doc)
    if spec.get("submissionMode", MODES[0]) not in MODES:
        yield f"submissionMode {spec['submissionMode']} is none of {', '.join(MODES)}"
    if spec.get("submissionMode") == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if field in spec:
                yield f"{field} is refused with submissionMode SidecarMode"
    if spec.get("clusterSelector") and spec.get("backoffLimit"):
        yield "clusterSelector is refused with backoffLimit"


def _limits(doc: Document) -> Iterator[str]:
    spec = _spec(doc)
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if field in spec and spec[field] <= 0:
            yield f"{field} must be more than 0"
    if spec.get("backoffLimit") and "--wait-for-lease" not in spec.get("entrypoint", ""):
        yield "backoffLimit without --wait-for-lease: a retry fails while the old driver still runs"


def _queue(doc: Document) -> Iterator[str]:
    if QUEUE not in ((doc.get("metadata") or {}).get("labels") or {}):
        return
    spec, cluster = _spec(doc), _cluster(doc)
    if not spec.get("suspend"):
        yield "a job for Kueue starts with suspend: true"
    if cluster.get("enableInTreeAutoscaling"):
        yield "Kueue admits a fixed number of Pods: set enableInTreeAutoscaling to false"
    if len(cluster.get("workerGroupSpecs") or []) > MOST_KUEUE_GROUPS:
        yield f"Kueue takes {MOST_KUEUE_GROUPS} worker groups at most"


def _service(doc: Document) -> Iterator[str]:
    timeout = ((doc.get("metadata") or {}).get("annotations") or {}).get(_TIMEOUT)
    if timeout is not None and not (_DURATION.fullmatch(timeout) or timeout.isdigit()):
        yield f"annotation {_TIMEOUT}: expected a duration such as 30m, got {timeout!r}"
    if not _spec(doc).get("excludeHeadPodFromServeSvc"):
        yield "excludeHeadPodFromServeSvc is off: requests would go to a head that runs no replica"


def _upgrade(doc: Document) -> Iterator[str]:
    strategy = _spec(doc).get("upgradeStrategy") or {}
    if strategy.get("type", UPGRADES[0]) not in UPGRADES:
        yield f"upgradeStrategy.type {strategy['type']} is none of {', '.join(UPGRADES)}"
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    options = strategy.get("clusterUpgradeOptions") or {}
    if not _cluster(doc).get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs enableInTreeAutoscaling"
    if not options.get("gatewayClassName"):
        yield "an incremental upgrade needs clusterUpgradeOptions.gatewayClassName"
    if options.get("intervalSeconds", 0) <= 0:
        yield "an incremental upgrade needs clusterUpgradeOptions.intervalSeconds above 0"
    if options.get("stepSizePercent", 0) > options.get("maxSurgePercent", 100):
        yield "clusterUpgradeOptions.stepSizePercent is more than maxSurgePercent"


def _budget(doc: Document) -> Iterator[str]:
    spec = _spec(doc)
    if "maxUnavailable" in spec or not isinstance(spec.get("minAvailable"), int):
        yield "Pods of a custom resource take a number in minAvailable alone"
