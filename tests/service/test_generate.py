"""`/v1/generate` over a fake backend: forms of the response, refusals, overload and timeouts."""

import base64
import hashlib
import io
from dataclasses import replace

import pytest
from PIL import Image
from pydantic import ValidationError

from tests.service.fake import (
    BROKEN_SEED,
    DESCRIPTION,
    FULL_SEED,
    REFUSED_SEED,
    SECRET,
    SLOW_SEED,
    assert_problem,
    client_of,
    make_fake,
)
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.service.api.schemas import limited_generate
from uniemo_ray.service.settings import Limits

URL = "/v1/generate"


def test_json_by_default(client):
    answer = client.post(URL, json={"emotion": "awe", "seed": 7, "n": 2}).json()
    assert answer["seed"] == 7
    assert [image["seed"] for image in answer["images"]] == [7, 8]
    data = base64.b64decode(answer["images"][1]["data"])
    assert answer["images"][1]["sha256"] == hashlib.sha256(data).hexdigest()
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (8, 8, 8)
    assert answer["images"][1]["provenance"] == {"seed": 8}


@pytest.mark.parametrize(
    ("accept", "format_", "kind"),
    [
        ("image/png", None, "PNG"),
        ("image/webp", None, "WEBP"),
        ("image/*", None, "PNG"),
        ("text/html, image/jpeg;q=0.9, image/webp;q=0.1", None, "JPEG"),
        ("image/*, application/json;q=0.5", "jpeg", "JPEG"),
    ],
)
def test_the_image_itself_by_accept(client, accept, format_, kind):
    body = {"emotion": "awe", "seed": 7} | ({"format": format_} if format_ else {})
    response = client.post(URL, json=body, headers={"accept": accept})
    assert response.headers["content-type"] == f"image/{kind.lower()}"
    assert Image.open(io.BytesIO(response.content)).format == kind


@pytest.mark.parametrize(
    ("accept", "more"),
    [("text/html", {}), ("image/png", {"n": 2}), ("image/png", {"format": "webp"}), ("*/*;q=0", {})],
)
def test_an_answer_that_cannot_be_given(client, accept, more):
    response = client.post(URL, json={"emotion": "awe"} | more, headers={"accept": accept})
    assert_problem(response, 406, "not available in the accepted")


def test_a_seed_is_drawn_and_told(client):
    seeds = {client.post(URL, json={"emotion": "awe"}).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_pixels_of_all_images_are_limited_together(generation_store):
    app, _ = make_fake(generation_store, limits=Limits(generated_pixels=1000))
    client = client_of(app)
    assert client.post(URL, json={"emotion": "awe", "n": 4, "width": 16, "height": 8}).status_code == 200
    assert_problem(
        client.post(URL, json={"emotion": "awe", "n": 8, "width": 16, "height": 8}),
        422,
        "more than 1000 pixels",
        "n",
    )


@pytest.mark.parametrize(
    ("request_", "words", "field"),
    [
        ({"emotion": "joy"}, "unknown emotion 'joy'", "emotion"),
        ({"emotion": {"joy": 1}}, "unknown emotion 'joy'", "emotion.joy"),
        ({"emotion": {"awe": 0}}, "greater than 0", "emotion.awe"),
        ({"emotion": {}}, "at least 1", "emotion"),
        ({"emotion": {f"a{i}": 1 for i in range(9)}}, "at most 8 emotions, got 9", "emotion"),
        ({"emotion": 3}, "valid string", "emotion"),
        ({"emotion": "sadness"}, "cannot generate sadness", "emotion"),
        ({"emotion": "awe", "prompt": "room"}, "the prompt needs {}", "prompt"),
        ({"emotion": "awe", "prompt": "{}" * 200}, "at most 300", "prompt"),
        ({"emotion": "awe", "prompt": "{} \ufffe"}, "not text", "prompt"),
        ({"emotion": "awe", "prompt": "{} \x00"}, "not text", "prompt"),
        ({"emotion": "awe", "steps": 101}, "less than or equal to 100", "steps"),
        ({"emotion": "awe", "steps": "3"}, "valid integer", "steps"),
        ({"emotion": "awe", "n": 9}, "less than or equal to 8", "n"),
        ({"emotion": "awe", "width": 1032}, "less than or equal to 1024", "width"),
        ({"emotion": "awe", "width": 10}, "multiple of 8", "width"),
        ({"emotion": "awe", "seed": -1}, "greater than or equal to 0", "seed"),
        ({"emotion": "awe", "seed": 2**53 - 1}, "less than or equal to 9007199254740984", "seed"),
        ({"emotion": "awe", "sed": 1}, "Extra inputs", "sed"),
        ({"emotion": "awe", "format": "gif"}, "'png', 'webp' or 'jpeg'", "format"),
        ({"emotion": "awe", "model": "other"}, "unknown model", "model"),
        ({"emotion": "awe", "seed": REFUSED_SEED}, "too long", "prompt"),
        ({}, "Field required", "emotion"),
    ],
)
def test_impossible_requests(client, request_, words, field):
    assert_problem(client.post(URL, json=request_), 422, words, field)


def test_a_model_that_only_understands_refuses_to_generate(served, monkeypatch):
    client, backend = served

    async def describe(_model):
        return replace(DESCRIPTION, paintable=(), pixels_multiple=1)

    monkeypatch.setattr(backend, "describe", describe)
    assert client.get("/v1/model").json()["paintable"] == []
    for url in (URL, "/v1/generations"):
        assert_problem(client.post(url, json={"emotion": "awe"}), 422, "only understands", "model")


def test_strange_text_comes_back_as_valid_text(client):
    body = '{"emotion": "awe", "\\ud800": 1}'
    response = client.post(URL, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["status"] == response.status_code
    for url in (URL, "/v1/generations"):
        body = '{"emotion": "awe", "prompt": "{} \\ud800"}'
        response = client.post(url, content=body, headers={"content-type": "application/json"})
        assert_problem(response, 422, "", "prompt")
    assert_problem(client.post(URL, content="{", headers={"content-type": "application/json"}), 400, "JSON")


def test_a_large_body_is_refused(client):
    chunks = (bytes(1000) for _ in range(60))
    response = client.post(URL, content=chunks, headers={"content-type": "application/json"})
    assert_problem(response, 413, "larger than 50000 bytes")


def test_generate_bodies_are_small_whatever_files_may_be(generation_store):
    app, _ = make_fake(generation_store, limits=Limits(generate_body_bytes=500))
    response = client_of(app).post(URL, json={"emotion": {f"a{i}": 1 for i in range(2000)}})
    assert_problem(response, 413, "larger than 500 bytes")
    assert client_of(app).post("/v1/understand", content=bytes(600)).status_code == 422


def test_many_wrong_keys_are_one_error():
    """Thousands of errors about one body would delay the requests of all other callers."""
    model = limited_generate(Limits(), ["default"], EMOTIONS)
    many = {f"a{i}": 1 for i in range(3000)}
    for body in (many, {"emotion": many}, {"emotion": "awe"} | many):
        with pytest.raises(ValidationError) as error:
            model.model_validate(body)
        assert error.value.error_count() <= 2


def test_an_internal_error_reveals_nothing(client, caplog):
    response = client.post(URL, json={"emotion": "awe", "seed": BROKEN_SEED})
    assert_problem(response, 500, "could not be completed")
    assert SECRET not in response.text
    assert SECRET in caplog.text  # the log has it
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_full_queue_says_when_to_come_again(client):
    response = client.post(URL, json={"emotion": "awe", "seed": FULL_SEED})
    assert_problem(response, 503, "the queue is full")
    assert response.headers["retry-after"] == "2"


def test_what_takes_too_long_is_cancelled(served):
    client, backend = served
    response = client.post(URL, json={"emotion": "awe", "seed": SLOW_SEED})
    assert_problem(response, 503, "longer than 0.4 s")
    assert response.headers["retry-after"] == "2"
    assert backend.cancelled == [SLOW_SEED]


def test_json_has_one_kind_of_number(client):
    answers = [
        client.post(URL, json={"emotion": "awe", "seed": s, "width": w}).json()
        for s, w in ((7, 8), (7.0, 8.0))
    ]
    assert answers[0] == answers[1]
    assert_problem(client.post(URL, json={"emotion": "awe", "seed": 7.5}), 422, "valid integer", "seed")
    assert_problem(client.post(URL, json={"emotion": "awe", "n": True}), 422, "valid integer", "n")
