"""What a RayService serves, and what a RayJob runs."""

import pytest
import yaml

from tests.cluster.conftest import lines
from tools.cluster_check.command import ROOT
from tools.cluster_check.service_config import (
    check_entrypoint,
    check_run,
    check_runtime_env,
    check_service,
    merged,
)


def changed(rayservice, edit):
    config = yaml.safe_load(rayservice["spec"]["serveConfigV2"])
    edit(config, config["applications"][0]["args"])
    rayservice["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    return lines(check_service(rayservice, "f", ROOT))


def test_the_service_is_that_of_serve_config(rayservice):
    assert lines(check_service(rayservice, "f", ROOT)) == ""


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            lambda config, args: args.update(threads=4),
            "applications[0].args.threads is not what serve/config.yaml",
        ),
        (lambda config, args: args.pop("tokens"), "applications[0].args.tokens is not what"),
        (lambda config, args: args.update(endpoint_replica=2), "endpoint_replica: Extra inputs"),
        (lambda config, args: args.update(generate_micro_batch=3), "batch_size 4 is not a multiple"),
        (lambda config, args: config.update(proxy_location="Everywhere"), "proxy_location"),
        (
            lambda config, args: args["limits"].update(generate_timeout_s=900),
            "rayClusterDeletionDelaySeconds is less",
        ),
    ],
)
def test_a_fault_is_found(edit, expected, rayservice):
    assert expected in changed(rayservice, edit)


def test_text_that_is_no_yaml_is_found(rayservice):
    rayservice["spec"]["serveConfigV2"] = "a: [\n"
    assert "serveConfigV2" in lines(check_service(rayservice, "f", ROOT))
    rayservice["spec"]["serveConfigV2"] = ""
    assert "is empty" in lines(check_service(rayservice, "f", ROOT))


def test_a_pod_that_ends_before_its_generations_is_found(rayservice):
    pod = rayservice["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 60
    assert "terminationGracePeriodSeconds 60 is less than 270" in lines(check_service(rayservice, "f", ROOT))


def test_changes_go_over_a_base_key_by_key():
    assert merged({"a": {"b": 1, "c": 2}, "d": [{"e": 1}]}, {"a": {"c": 3}, "d": [{"f": 2}]}) == {
        "a": {"b": 1, "c": 3},
        "d": [{"e": 1, "f": 2}],
    }


def test_a_runtime_environment_is_checked(rayjob):
    assert lines(check_runtime_env(rayjob, "f")) == ""
    rayjob["spec"]["runtimeEnvYAML"] = "env_vars:\n  HF_HUB_OFFLINE: 1\n"
    assert "runtimeEnvYAML" in lines(check_runtime_env(rayjob, "f"))


RUN = ROOT / "cluster/kuberay/base/run.yaml"
JOB = "python -m uniemo_ray.jobs.feedback_loop --config /etc/uniemo/run.yaml"


@pytest.mark.parametrize(
    ("entrypoint", "expected"),
    [
        (JOB, ""),
        ("python jobs/feedback_loop.py", "is not `python -m uniemo_ray.jobs.NAME ...`"),
        ("", "is not `python -m"),
        (JOB.replace("loop", "lop", 1), "there is no job uniemo_ray.jobs.feedback_lop"),
        (f"{JOB} --wait-for-leas 900 --x", "unrecognized arguments: --x"),
        (f"{JOB} --wait-for-lease soon", "invalid float value: 'soon'"),
        (f"{JOB} --set resources.worker=4", "resources.worker"),
    ],
)
def test_a_command_that_a_job_does_not_take_is_found(entrypoint, expected, rayjob):
    assert lines(check_entrypoint(rayjob, "f", RUN)) == ""
    rayjob["spec"]["entrypoint"] = entrypoint
    found = lines(check_entrypoint(rayjob, "f", RUN))
    assert expected in found
    assert bool(found) == bool(expected)


def test_the_settings_of_the_run_are_checked(tmp_path):
    config, faults = check_run(ROOT / "cluster/kuberay/base/run.yaml", "run.yaml")
    assert config is not None
    assert lines(faults) == ""
    assert (config.resources.use_gpu, config.run[:5]) == (True, "s3://")
    (tmp_path / "run.yaml").write_text("config: paper\nresources: {worker: 4}\n")
    assert "worker" in lines(check_run(tmp_path / "run.yaml", "run.yaml")[1])
