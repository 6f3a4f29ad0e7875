"""The Serve application in process, over a tiny random model folder."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError
from ray import serve

from serve.api import GenerateRequest, make_api
from serve.app import BuildArgs, ModelBackend, build_app
from serve.limits import Limits
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.inference.provenance import read_provenance

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"


@pytest.fixture(scope="module")
def backend(model_folder) -> ModelBackend:
    return ModelBackend(str(model_folder))


def test_the_application_loads_the_model(model_folder, backend):
    handle = serve.run(build_app(BuildArgs(model=str(model_folder))), _local_testing_mode=True)
    described = handle.describe.remote().result()
    assert described["emotions"] == list(EMOTIONS)
    assert described["fingerprint"] == backend.model.parts.fingerprint != ""


def test_a_missing_model_names_itself(tmp_path):
    with pytest.raises(Exception, match="gone"):
        serve.run(build_app(BuildArgs(model=str(tmp_path / "gone"))), _local_testing_mode=True)


def test_understand_equals_the_direct_call(backend):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    direct = backend.model.understand([image])[0]
    assert backend.understand(image).emotions == direct.emotions


def test_generated_bytes_depend_on_the_request_alone(backend):
    wanted = GenerateRequest(emotion="awe", seed=5, steps=2)
    first = backend.generate(wanted)
    other = backend.generate(GenerateRequest(emotion="fear", seed=5, steps=2))
    assert backend.generate(wanted) == first != other
    assert read_provenance(first)["seed"] == 5


def test_over_http(backend):
    client = TestClient(make_api(backend, limits=Limits()))
    picture = client.post("/v1/generate", json={"emotion": {"awe": 1, "fear": 3}, "steps": 2})
    assert picture.status_code == 200, picture.text
    seen = client.post("/v1/understand", content=picture.content).json()
    assert sum(seen["emotions"].values()) == pytest.approx(1)
    refused = client.post(
        "/v1/generate", json={"emotion": "sadness", "steps": 2}
    )  # the model has no image of it
    assert refused.status_code == 422
    assert "sadness" in refused.json()["detail"]


def test_a_relative_model_folder_is_made_absolute(model_folder, monkeypatch):
    monkeypatch.chdir(model_folder.parent)
    application = build_app(BuildArgs(model=model_folder.name, replicas=3))
    assert application._bound_deployment.init_args == (str(model_folder.resolve()),)
    assert application._bound_deployment.num_replicas == 3


@pytest.mark.parametrize(
    "values", [{}, {"model": ""}, {"model": "m", "replicas": 0}, {"model": "m", "modle": "x"}]
)
def test_arguments_are_checked(values):
    with pytest.raises(ValidationError):
        BuildArgs.model_validate(values)


def test_the_config_file_fits_the_builder_and_binds_to_loopback():
    config = yaml.safe_load(CONFIG.read_text())
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["applications"][0]["import_path"] == "serve.app:build_app"
    assert BuildArgs.model_validate(config["applications"][0]["args"]).replicas == 1
