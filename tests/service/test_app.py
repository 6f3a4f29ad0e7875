"""The Serve application in process, without a cluster, over a tiny random model folder."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray import serve

from uniemo_ray.service import deployments
from uniemo_ray.service.app import BuildArgs, build_app
from uniemo_ray.service.deployments import check_exposure
from uniemo_ray.service.pool import GenerationPool, Pool
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile, add_token
from uniemo_ray.service.workers.model_registry import ModelRegistry

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"


def test_the_application_binds_what_was_asked_for(model_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(model_folder.parent)
    pool = GenerationPool(max_replicas=3)
    args = BuildArgs(model=model_folder.name, models={"b": "s3://bucket/b"}, generation=pool)
    endpoint = build_app(args)._bound_deployment
    assert list(endpoint.init_kwargs["registry"].models) == ["default", "b"]
    understanding, generation = (bound._bound_deployment for bound in endpoint.init_args)
    registry = generation.init_args[0]
    assert registry.models == {"default": str(model_folder.resolve()), "b": "s3://bucket/b"}
    config = generation._deployment_config
    assert config.autoscaling_config.max_replicas == 3
    assert config.max_surge_percent == 100
    assert config.max_ongoing_requests >= generation.init_args[1].batch_size
    assert understanding.name == "Understanding"
    assert endpoint._deployment_config.max_constructor_retry_count == 3
    for deployment in (endpoint, generation):  # what it has taken may finish when it is replaced
        assert deployment._deployment_config.graceful_shutdown_timeout_s > args.limits.generate_timeout_s


def test_replicas_ask_for_the_machines_of_their_labels():
    own = {"uniemo/pool": "serve", "ray.io/accelerator-type": "in(L4, A10G)"}
    endpoint = build_app(BuildArgs(generation=GenerationPool(labels=own)))._bound_deployment
    understanding, generation = (bound._bound_deployment for bound in endpoint.init_args)
    assert generation.ray_actor_options["label_selector"] == own
    assert "label_selector" not in understanding.ray_actor_options
    with pytest.raises(ValidationError, match="Invalid label key prefix `a/b`"):
        GenerationPool(labels={"a/b/c": "d"})


def test_a_changed_mounted_secret_takes_effect(tmp_path):
    """Kubernetes mounts a link to a link to a folder, and changes the second link."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    old = add_token(tmp_path / "1" / "tokens.json", "ann")
    new = add_token(tmp_path / "2" / "tokens.json", "ann")
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "tokens.json").symlink_to("data/tokens.json")
    path = build_app(BuildArgs(tokens=str(tmp_path / "tokens.json")))._bound_deployment.init_kwargs["tokens"]
    assert TokenFile(Path(path)).name_of(old) == "ann"
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("2")
    shutil.rmtree(tmp_path / "1")
    after = TokenFile(Path(path))
    assert (after.name_of(old), after.name_of(new)) == (None, "ann")


def test_a_folder_that_is_not_a_model_stops_a_replica(model_folder, tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        registry = ModelRegistry(models={"default": "tiny", "b": str(folder)})
        with pytest.raises(ValueError, match=re.escape(str(folder))):
            deployments.UnderstandingDeployment(registry, Pool(), Limits())
    ModelRegistry(models={"default": "tiny", "b": str(model_folder), "c": "tiny"}).check_others()


def test_without_a_model_the_shipped_one_is_served(monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name changes nothing
    registry = build_app(BuildArgs())._bound_deployment.init_args[0]._bound_deployment.init_args[0]
    assert registry.models == {"default": "tiny"}
    assert yaml.safe_load(CONFIG.read_text())["applications"][0]["args"]["model"] == "tiny"


def test_a_damaged_model_is_refused_before_anything_is_deployed(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json|checksums"):
        build_app(BuildArgs(model=str(tmp_path)))


def test_a_missing_model_names_itself(tmp_path):
    with pytest.raises(Exception, match="gone"):
        serve.run(
            serve.deployment(deployments.UnderstandingDeployment).bind(
                ModelRegistry(models={"default": str(tmp_path / "gone")}), Pool(), Limits()
            ),
            name="gone",
            _local_testing_mode=True,
        )


@pytest.mark.parametrize(
    "values",
    [
        {"model": ""},
        {"model": "m", "threads": 0},
        {"model": "m", "modle": "x"},
        {"model": "m", "models": {"default": "x"}},
        {"model": "m", "limits": {"steps": 0}},
        {"model": "m", "generation": {"replicas": 2}},
        {"model": "m", "understanding": {"batch_size": 8}, "understand_micro_batch": 16},
    ],
)
def test_arguments_are_checked(values):
    with pytest.raises(ValidationError):
        BuildArgs.model_validate(values)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"endpoint_looks": False}, "endpoint_looks was renamed: write inline_inference instead"),
        ({"limits": {"order_bytes": 9}}, "order_bytes was renamed: write generate_body_bytes instead"),
    ],
)
def test_an_old_name_of_a_setting_is_refused_with_the_new_one(values, line):
    asked = yaml.safe_load(CONFIG.read_text())["applications"][0]["args"]
    with pytest.raises(ValidationError) as error:
        BuildArgs.model_validate(asked | values)
    (found,) = error.value.errors()
    assert found["msg"] == f"Value error, {line}"


def test_a_batch_is_made_of_whole_passes():
    with pytest.raises(ValidationError, match=r"batch_size 4 .* generate_micro_batch 6.* set it to 6"):
        BuildArgs(generate_micro_batch=6, generation=GenerationPool(max_replicas=2))
    pool = GenerationPool(batch_size=8)
    assert BuildArgs(generate_micro_batch=4, generation=pool).generation == pool


def test_defaults_of_a_pool_are_those_of_generation():
    asked = yaml.safe_load(CONFIG.read_text())["applications"][0]["args"]
    for args in (BuildArgs(), BuildArgs.model_validate(asked)):
        assert (args.generation.batch_size, args.generation.batches_held) == (4, 4)


@pytest.mark.parametrize(
    ("host", "is_fine"), [("127.0.0.1", True), ("0.0.0.0", False), ("10.1.2.3", False), (None, True)]
)
def test_beyond_loopback_a_token_file_is_needed(host, is_fine, tmp_path, monkeypatch):
    monkeypatch.setattr(deployments, "_http_host", lambda: host)
    if is_fine:
        assert check_exposure(None) is None
    else:
        with pytest.raises(ValueError, match="refusing to serve"):
            check_exposure(None)
    token = add_token(tmp_path / "tokens.json", "ann")
    assert check_exposure(str(tmp_path / "tokens.json")).name_of(token) == "ann"


def test_the_config_file_fits_the_builder_and_binds_to_loopback():
    config = yaml.safe_load(CONFIG.read_text())
    assert config["http_options"]["host"] == "127.0.0.1"
    application = config["applications"][0]
    assert application["import_path"] == "uniemo_ray.service.app:build_app"
    args = BuildArgs.model_validate(application["args"])
    longest = max(args.limits.generate_timeout_s, args.limits.understand_timeout_s)
    assert config["http_options"]["request_timeout_s"] > longest + args.limits.body_timeout_s
