"""The API's description is complete, and every response follows it."""

import pytest

from tests.service.fake import WHITE, client_of, make_fake
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile, add_token

ROUTES = {
    ("post", "/v1/understand"),
    ("post", "/v1/generate"),
    ("post", "/v1/generations"),
    ("get", "/v1/generations/{id}"),
    ("delete", "/v1/generations/{id}"),
    ("get", "/v1/generations/{id}/events"),
    ("get", "/v1/generations/{id}/images/{index}"),
    ("get", "/v1/generations/{id}/previews/{index}"),
    ("get", "/v1/model"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


@pytest.fixture
def description(client):
    return client.get("/openapi.json").json()


def operations(description):
    return [(m, path, entry) for path, ways in description["paths"].items() for m, entry in ways.items()]


def test_every_route_is_described(description):
    assert {(method, path) for method, path, _ in operations(description)} == ROUTES
    names = [entry["operationId"] for _, _, entry in operations(description)]
    assert len(set(names)) == len(names)
    for _, path, entry in operations(description):
        assert entry.get("description") or entry.get("summary"), path
        assert entry["tags"], path


def test_errors_are_problems_and_nothing_else(description):
    for _, path, entry in operations(description):
        for status, answer in entry["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    assert "HTTPValidationError" not in description["components"]["schemas"]
    assert description["components"]["schemas"]["Problem"]["examples"]


def test_references_lead_somewhere(description):
    def walk(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                name = value["$ref"].removeprefix("#/components/schemas/")
                assert name in description["components"]["schemas"], name
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(description)


def test_limits_are_the_services_own(generation_store):
    app, _ = make_fake(
        generation_store, limits=Limits(steps=7, images=3, n=2, side_px=64, names=4, prompt_characters=9)
    )
    description = client_of(app).get("/openapi.json").json()
    properties = description["components"]["schemas"]["GenerateRequest"]["properties"]
    assert properties["steps"]["anyOf"][0]["maximum"] == 7
    assert properties["n"]["maximum"] == 2
    assert properties["width"]["anyOf"][0]["maximum"] == 64
    assert properties["prompt"]["anyOf"][0]["maxLength"] == 9
    assert all(entry.get("description") for entry in properties.values())
    body = description["paths"]["/v1/understand"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["properties"]["image"]["maxItems"] == 3
    assert body["application/json"]["schema"]["properties"]["images"]["maxItems"] == 3


def test_examples_work(client, description):
    generate = description["components"]["schemas"]["GenerateRequest"]["examples"]
    understand = description["paths"]["/v1/understand"]["post"]["requestBody"]["content"]["application/json"]
    assert len(generate) == 2
    for example in generate:
        assert client.post("/v1/generate", json=example).status_code == 200
        assert client.post("/v1/generations", json=example).status_code == 202
    for example in understand["schema"]["examples"]:
        assert client.post("/v1/understand", json=example).status_code == 200


def test_answers_have_the_described_status(client, description):
    calls = [
        ("post", "/v1/understand", "/v1/understand", {"content": WHITE}),
        ("post", "/v1/understand", "/v1/understand", {"content": b""}),
        ("post", "/v1/generate", "/v1/generate", {"json": {}}),
        ("get", "/v1/generations/{id}", f"/v1/generations/{'x' * 22}", {}),
        ("get", "/v1/model", "/v1/model?model=other", {}),
        ("get", "/readyz", "/readyz", {}),
    ]
    for method, path, url, options in calls:
        status = client.request(method, url, **options).status_code
        assert str(status) in description["paths"][path][method]["responses"], (path, status)


def test_not_ready_and_wrong_methods_are_problems(served):
    client, backend = served
    backend.is_up = False
    response = client.get("/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert client.get("/healthz").json() == {"status": "ok"}
    wrong = client.get("/v1/generate")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.put(f"/v1/generations/{'x' * 22}").headers["allow"] == "DELETE, GET, HEAD"
    assert wrong.headers["content-type"] == "application/problem+json"


def test_the_model_answer_has_card_limits_and_defaults(client):
    answer = client.get("/v1/model").json()
    assert (answer["model"], answer["models"], answer["fingerprint"]) == ("default", ["default"], "abc")
    assert answer["limits"]["body_bytes"] == 50_000
    assert answer["defaults"]["steps"] == 3
    assert answer["card"] == "# A card"


def test_security_is_described_when_there_is_some(generation_store, tmp_path, description):
    assert "securitySchemes" not in description["components"]
    add_token(tmp_path / "tokens.json", "ann")
    app, _ = make_fake(generation_store, tokens=TokenFile(tmp_path / "tokens.json"))
    secured = client_of(app).get("/openapi.json").json()
    assert secured["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    open_paths = {path for _, path, entry in operations(secured) if "security" not in entry}
    assert open_paths == {"/healthz", "/readyz"}
