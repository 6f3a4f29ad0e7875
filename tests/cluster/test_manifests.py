"""Kubernetes manifests: schemas, the operator's rules, Pods; each planted fault is found."""

import copy
import json
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import built, lines
from tools.cluster_check.cluster_rules import check_cluster
from tools.cluster_check.command import ROOT
from tools.cluster_check.documents import build, clusters, parse, repeated
from tools.cluster_check.faults import Document, NotCheckedError
from tools.cluster_check.manifests import Manifests
from tools.cluster_check.pod_rules import check_pods
from tools.cluster_check.resource_rules import check_resource
from tools.cluster_check.schemas import check_document

RAY = "2.60.0"
OVERLAYS = ("base", "overlays/eks", "overlays/gke", "overlays/kueue", "overlays/dev")
ACCOUNT = {"kind": "ServiceAccount", "metadata": {"name": "uniemo"}}
MAPS = [{"kind": "ConfigMap", "metadata": {"name": name}} for name in ("uniemo-env", "uniemo-run")]


def change(doc: Document, path: str, value: Any) -> Document:
    """A copy with one field set, or removed where the value is None; numbers are places in lists."""
    doc = copy.deepcopy(doc)
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place: Any = doc
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return doc


def all_rules(doc: Document) -> str:
    faults = check_resource(doc, "f") + check_pods([doc, ACCOUNT, *MAPS], "f")
    for cluster in clusters([doc]):
        faults += check_cluster(cluster, "f", RAY)
    return lines(faults)


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_is_built_is_right(name, need_kubectl):
    docs = built(name)
    assert lines(repeated(docs, name)) == ""
    assert lines(Manifests(ROOT).check_documents(docs, name)) == ""


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_is_built_fits_its_schema(name, schemas, need_kubectl):
    pytest.importorskip("kubernetes_validate")
    pytest.importorskip("cel")
    docs = built(name)
    assert len(docs) >= 3
    assert lines([fault for doc in docs for fault in check_document(doc, name, schemas)]) == ""


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec/backofLimit", 5, "backofLimit"),
        ("spec/rayClusterSpec/workerGroupSpecs/0/maxReplica", 8, "maxReplica"),
        (
            "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/memory",
            "54 Gigabytes",
            "54 Gigabytes",
        ),
        (
            "spec/deletionStrategy/deletionRules/0/condition/jobDeploymentStatus",
            "Failed",
            "self.spec.deletion",
        ),
    ],
)
def test_a_field_that_the_schema_refuses_is_found(path, value, expected, rayjob, schemas):
    pytest.importorskip("jsonschema")
    pytest.importorskip("cel")
    assert expected in lines(check_document(change(rayjob, path, value), "f", schemas))


def test_rules_inside_a_schema_are_computed(tmp_path):
    pytest.importorskip("jsonschema")
    pytest.importorskip("cel")
    rules = [
        {"rule": "self.spec.a < self.spec.b", "message": "a must be less than b"},
        {"rule": "oldSelf.spec.a == self.spec.a", "message": "a must stay"},
        {"rule": "self.spec.nothing > 1"},
    ]
    numbers = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "spec": {"type": "object", "properties": numbers},
        },
        "x-kubernetes-validations": rules,
    }
    (tmp_path / "mine-1-rayjob-v1.json").write_text(json.dumps(schema))
    doc = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "x"}, "spec": {"a": 2, "b": 1}}
    found = lines(check_document(doc, "f", tmp_path))
    assert "f: RayJob x: self: a must be less than b" in found
    assert "a must stay" not in found
    assert "cannot be computed" in found


def test_kubernetes_own_kinds_are_checked():
    pytest.importorskip("kubernetes_validate")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "a"},
        "spec": {"minAvailble": 1},
    }
    assert "minAvailble" in lines(check_document(budget, "f", None))
    assert "there is no kind 'Confg'" in lines(
        check_document({"apiVersion": "v1", "kind": "Confg"}, "f", None)
    )


def test_without_schemas_the_check_says_so(rayjob):
    with pytest.raises(NotCheckedError, match="UNIEMO_K8S_SCHEMAS"):
        check_document(rayjob, "f", None)


G = "spec/rayClusterSpec/workerGroupSpecs/0"
POD = f"{G}/template/spec"
GPU_POD = "spec/rayClusterSpec/workerGroupSpecs/2/template/spec"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("metadata/name", "a" * 48, "the name has 48 characters, and RayJob takes 47"),
        ("metadata/name", "1-loop", "a letter first"),
        (
            "spec/rayClusterSpec/rayVersion",
            "2.59.0",
            "rayVersion is 2.59.0, and constraints.txt has Ray 2.60.0",
        ),
        ("spec/rayClusterSpec/rayVersion", "2.50.0", "token needs rayVersion 2.52"),
        ("spec/rayClusterSpec/rayVersion", "2.55.0", "priority needs the autoscaler v2 and rayVersion 2.56"),
        ("spec/rayClusterSpec/authOptions", None, "authOptions.mode is not token"),
        ("spec/rayClusterSpec/authOptions/enableK8sTokenAuth", True, "is refused for a RayJob"),
        ("spec/rayClusterSpec/autoscalerOptions/version", "v1", "autoscalerOptions.version is not v2"),
        ("spec/rayClusterSpec/autoscalerOptions/version", "v1", "idleTimeoutSeconds needs the autoscaler v2"),
        ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", "4", "num-cpus is not '0'"),
        (f"{POD}/restartPolicy", "Always", "the autoscaler v2 needs Never"),
        (f"{G}/rayStartParams", {"labels": "a=b"}, "labels belong beside rayStartParams"),
        (f"{G}/replicas", 9, "replicas are not from 0 to 8"),
        (f"{G}/groupName", "train", "group train is there twice"),
        ("spec/rayClusterSpec/gcsFaultToleranceOptions", {"redisAddress": "a"}, "do not help a RayJob"),
        ("spec/shutdownAfterJobFinishes", True, "exclude each other"),
        ("spec/deletionStrategy", None, "the cluster would stay for ever"),
        ("spec/deletionStrategy/deletionRules/0/policy", "DeleteWorkers", "refused with autoscaling"),
        (
            "spec/deletionStrategy/deletionRules/0/condition/jobDeploymentStatus",
            "Failed",
            "name jobStatus or jobDeploymentStatus, and not both",
        ),
        (
            "spec/deletionStrategy/deletionRules/1",
            {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 10}},
            "ttlSeconds must not fall",
        ),
        (
            "spec/deletionStrategy/deletionRules/1/condition/jobStatus",
            "SUCCEEDED",
            "two deletion rules of the same policy",
        ),
        ("spec/suspend", True, "suspend is refused without shutdownAfterJobFinishes"),
        ("spec/submissionMode", "K8JobMode", "submissionMode K8JobMode is none of K8sJobMode"),
        ("spec/submissionMode", "SidecarMode", "submitterPodTemplate is refused"),
        ("spec/clusterSelector", {"a": "b"}, "clusterSelector is refused with backoffLimit"),
        ("spec/activeDeadlineSeconds", 0, "activeDeadlineSeconds must be more than 0"),
        (
            "spec/entrypoint",
            "python -m uniemo_ray.jobs.feedback_loop",
            "backoffLimit without --wait-for-lease",
        ),
        ("metadata/labels", {"kueue.x-k8s.io/queue-name": "q"}, "a job for Kueue starts with suspend: true"),
        ("metadata/labels", {"kueue.x-k8s.io/queue-name": "q"}, "set enableInTreeAutoscaling to false"),
        (f"{POD}/securityContext/runAsNonRoot", False, "runAsNonRoot is not true"),
        (f"{POD}/securityContext/seccompProfile", None, "seccompProfile.type is not RuntimeDefault"),
        (f"{POD}/containers/0/securityContext", None, "allowPrivilegeEscalation is not false"),
        (f"{POD}/containers/0/securityContext/capabilities", None, "capabilities.drop is not [ALL]"),
        (f"{POD}/automountServiceAccountToken", None, "automountServiceAccountToken is not false"),
        ("spec/submitterPodTemplate/spec/securityContext", None, "submitter: securityContext.runAsNonRoot"),
        (f"{POD}/containers/0/resources/requests/cpu", "1", "requests are not equal to limits"),
        (f"{POD}/containers/0/resources/limits/ephemeral-storage", None, "no limit of ephemeral-storage"),
        (f"{POD}/volumes/1/emptyDir/sizeLimit", "16Gi", "30 % of the Pod's 54Gi"),
        (f"{POD}/volumes/1/name", "other", "no volume at /dev/shm"),
        (f"{GPU_POD}/tolerations", None, "does not tolerate the taint nvidia.com/gpu"),
        (f"{POD}/serviceAccountName", "default", "there is no ServiceAccount default"),
        (f"{POD}/containers/0/envFrom/0/configMapRef/name", "env", "there is no ConfigMap env"),
        (f"{POD}/nodeSelector", {"karpenter.sh/capacity-type": "spot"}, "nodeSelector asks for spot"),
    ],
)
def test_a_fault_in_a_job_is_found(path, value, expected, rayjob):
    assert all_rules(rayjob) == ""
    assert expected in all_rules(change(rayjob, path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("metadata/annotations", {"ray.io/initializing-timeout": "half an hour"}, "such as 30m"),
        ("spec/excludeHeadPodFromServeSvc", False, "excludeHeadPodFromServeSvc is off"),
        ("spec/rayClusterConfig/gcsFaultToleranceOptions/storage", {"a": 1}, "exclude each other"),
        (
            "spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/env",
            [{"name": "RAY_REDIS_ADDRESS", "value": "a"}],
            "RAY_REDIS_ADDRESS as a variable",
        ),
        (
            "spec/upgradeStrategy",
            {
                "type": "NewClusterWithIncrementalUpgrade",
                "clusterUpgradeOptions": {"stepSizePercent": 20, "maxSurgePercent": 10, "intervalSeconds": 1},
            },
            "stepSizePercent is more than maxSurgePercent",
        ),
        ("spec/upgradeStrategy/type", "Newcluster", "upgradeStrategy.type Newcluster is none of"),
        ("spec/upgradeStrategy/type", "NewClusterWithIncrementalUpgrade", "gatewayClassName"),
        ("spec/upgradeStrategy/type", "NewClusterWithIncrementalUpgrade", "intervalSeconds above 0"),
    ],
)
def test_a_fault_in_the_service_is_found(path, value, expected, rayservice):
    assert all_rules(rayservice) == ""
    assert expected in all_rules(change(rayservice, path, value))


def test_numbers_that_are_there_twice_are_found(raycluster):
    group = raycluster["spec"]["workerGroupSpecs"][0]
    group["rayStartParams"], group["resources"] = {"num-cpus": "4"}, {"CPU": "4"}
    assert "num-cpus in rayStartParams and in resources" in all_rules(raycluster)


def test_a_budget_that_kubernetes_does_not_count_is_found():
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "a"}, "spec": {"maxUnavailable": 0}}
    assert "minAvailable alone" in lines(check_resource(budget, "f"))


def test_the_cluster_for_development_has_the_groups_of_the_loop(rayjob, raycluster):
    """The two files differ in how many machines there are, in data, and in labels."""

    def groups(spec: Document) -> list[tuple[Any, ...]]:
        found = []
        for group in spec["workerGroupSpecs"]:
            container = group["template"]["spec"]["containers"][0]
            found.append((group["groupName"], group["labels"], container["resources"], container["image"]))
        return found

    assert groups(rayjob["spec"]["rayClusterSpec"]) == groups(raycluster["spec"])


def test_a_key_or_a_document_that_is_there_twice_is_found(rayjob):
    assert lines(parse("a: 1\nb: 2\na: 3\n", "f")[1]) == "f: line 3: 'a' is there twice"
    assert "is there twice" in lines(repeated([rayjob, copy.deepcopy(rayjob)], "f"))


def test_a_resource_named_twice_and_a_patch_that_hits_nothing_are_found(tmp_path, need_kubectl):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", **ACCOUNT}))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", **ACCOUNT}))
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml, b.yaml]\n")
    _, faults = build(tmp_path, "f")
    assert "may not add resource with an already registered id" in lines(faults)


def test_an_image_that_kustomize_did_not_change_is_found(need_kubectl):
    docs = built("base")
    next(iter(clusters(docs))).spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = (
        "uniemo-ray"
    )
    assert "image uniemo-ray has no tag of a release" in lines(Manifests(ROOT).check_documents(docs, "f"))
