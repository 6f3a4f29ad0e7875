"""The service of models with other classes: what requests may name, what answers and the page say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.inference.conftest import random_heads, random_parts
from tests.label_spaces import BARE, OWN
from tests.service.fake import assert_problem, client_of
from uniemo_ray.emotions import EMOTIONS, SENTIMENT
from uniemo_ray.inference.model_folder import save_model_folder
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.schemas import limited_generate
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.deployments import _emotions_of
from uniemo_ray.service.local import LocalBackend
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry

LIMITS = Limits(generate_timeout_s=60)
PAGE = Path(__file__).parents[2] / "uniemo_ray" / "service" / "page"


@pytest.fixture(scope="module")
def folders(clip, pipeline_folder, tmp_path_factory) -> dict[str, Path]:
    found = {}
    for name, space in {"two": SENTIMENT, "own": OWN, "bare": BARE}.items():
        found[name] = tmp_path_factory.mktemp("models") / name
        parts = random_parts(clip, random_heads(space), pipeline_folder, space)
        counts = parts.space.counts
        counts[:] = 9  # all of them can be generated
        save_model_folder(parts, found[name])
    return found


@pytest.fixture(params=["two", "own", "bare"])
def served(request, folders, generation_store) -> Iterator[tuple[str, TestClient]]:
    registry = ModelRegistry(models={DEFAULT_MODEL: str(folders[request.param])})
    model = registry.load(DEFAULT_MODEL)
    backend = LocalBackend(
        registry.understander(model),
        registry.image_generator(model),
        generation_store=generation_store,
        limits=LIMITS,
    )
    app = make_api(backend, generation_store=generation_store, limits=LIMITS, emotions=registry.emotions())
    with client_of(app) as client:
        yield request.param, client


SPACES = {"two": SENTIMENT, "own": OWN, "bare": BARE}


def test_requests_name_the_emotions_of_the_model(served) -> None:
    name, client = served
    space = SPACES[name]
    schema = client.get("/openapi.json").json()["components"]["schemas"]["GenerateRequest"]
    one, several = schema["properties"]["emotion"]["oneOf"]
    assert one["enum"] == list(space.labels)
    assert several["propertyNames"]["enum"] == list(space.labels)
    assert several["maxProperties"] == len(space.labels)
    for example in schema["examples"]:
        asked = example["emotion"]
        assert set([asked] if isinstance(asked, str) else asked) <= set(space.labels)
        assert client.post("/v1/generate", json=example | {"format": "png"}).status_code == 200
    assert_problem(client.post("/v1/generate", json={"emotion": "awe"}), 422, "unknown emotion", "emotion")


def test_answers_speak_of_the_labels_and_of_a_valence_where_there_is_one(served) -> None:
    name, client = served
    space = SPACES[name]
    described = client.get("/v1/model").json()
    assert described["emotions"] == described["paintable"] == list(space.labels)
    assert described["valences"] == space.valences
    made = client.post(
        "/v1/generate", json={"emotion": space.labels[0], "seed": 1}, headers={"accept": "image/png"}
    )
    seen = client.post("/v1/understand", content=made.content, headers={"content-type": "image/png"}).json()
    (result,) = seen["results"]
    assert list(result["emotions"]) == list(space.labels)
    assert result["valence"] in (("positive", "negative") if space.has_valence else (None,))


def test_mixtures_and_transfer_have_the_labels_too(served) -> None:
    name, client = served
    first, second = SPACES[name].labels[:2]
    asked = {"emotion": {first: 0.7, second: 0.3}, "prompt": "{} room", "seed": 2}
    images = [client.post("/v1/generate", json=asked | {"mix": mix}).json()["images"][0]
              for mix in ("condition", "guidance")]  # fmt: skip
    for image in images:
        assert image["provenance"]["emotions"] == {first: pytest.approx(0.7), second: pytest.approx(0.3)}
    started = client.post("/v1/generations", json=asked)
    assert started.status_code == 202
    refused = client.post("/v1/generations", json=asked | {"emotion": {"awe": 1}})
    assert_problem(refused, 422, "unknown emotion", "emotion.awe")


def test_several_models_offer_the_emotions_of_all(folders) -> None:
    models = {"other": str(folders["own"]), DEFAULT_MODEL: str(folders["two"])}
    assert ModelRegistry(models=models).emotions() == (*SENTIMENT.labels, *OWN.labels)


def test_emotions_that_the_endpoint_cannot_see_are_left_to_the_model(folders, generation_store) -> None:
    """A model folder may lie on the machines of the replicas alone."""
    registry = ModelRegistry(models={DEFAULT_MODEL: str(folders["two"].parent / "elsewhere")})
    assert _emotions_of(registry) is None
    here = ModelRegistry(models={DEFAULT_MODEL: str(folders["two"])})
    model = here.load(DEFAULT_MODEL)
    backend = LocalBackend(
        here.understander(model),
        here.image_generator(model),
        generation_store=generation_store,
        limits=LIMITS,
    )
    with client_of(make_api(backend, generation_store=generation_store, limits=LIMITS)) as client:
        assert client.post("/v1/generate", json={"emotion": "positive", "seed": 1}).status_code == 200
        asked = {"emotion": {"positive": 1, "awe": 1}}
        assert_problem(client.post("/v1/generate", json=asked), 422, "expected one of positive", "emotion")


def test_the_request_of_eight_emotions_is_described_as_it_was() -> None:
    schema = limited_generate(Limits(), [DEFAULT_MODEL], EMOTIONS).model_json_schema()
    assert schema["title"] == "GenerateRequest"
    assert schema["examples"][0] == {"emotion": "awe", "seed": 7}
    assert schema["properties"]["emotion"]["oneOf"][0]["enum"] == list(EMOTIONS)
    own = limited_generate(Limits(), [DEFAULT_MODEL], OWN.labels).model_json_schema()
    assert (own["title"], own["description"]) == (schema["title"], schema["description"])


def test_the_page_has_a_colour_for_each_valence_and_for_none() -> None:
    """Rules of equal weight: the last one counts, so those for the eight emotions come last."""
    style = (PAGE / "style.css").read_text()
    rules = [
        "[data-emotion] {",
        '[data-valence="positive"]',
        '[data-valence="negative"]',
        '[data-emotion="awe"]',
    ]
    places = [style.index(rule) for rule in rules]
    assert places == sorted(places)
    scripts = "".join(path.read_text() for path in PAGE.glob("*.js"))
    assert scripts.count("dataset.emotion = ") == 1  # in `tint`, which sets the valence too
