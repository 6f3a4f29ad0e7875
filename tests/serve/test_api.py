"""The HTTP interface over a small real backend: answers, limits and refusals, without Ray."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from serve.api import GenerateRequest, make_api
from serve.limits import Limits
from uniemo_ray.emotions import EMOTIONS


@dataclass(frozen=True)
class Seen:
    emotions: dict[str, float]
    top: str
    valence: str
    scenes: list[tuple[str, float]]
    objects: list[tuple[str, float]]


class Brightness:
    """A model that finds bright images amusing and dark ones sad, and paints one grey."""

    def understand(self, image: Image.Image) -> Seen:
        light = float(np.asarray(image).mean()) / 255
        emotions = dict.fromkeys(EMOTIONS, 0.0) | {"amusement": light, "sadness": 1 - light}
        top = max(emotions, key=lambda name: emotions[name])
        return Seen(emotions, top, "positive" if light > 0.5 else "negative", [("sky", light)], [])

    def generate(self, request: GenerateRequest) -> bytes:
        if request.emotion == "disgust":
            raise ValueError("no image of disgust was seen in training")
        if request.seed == 13:
            raise RuntimeError("secret path /home/someone")
        return encode(Image.new("RGB", (8, 8), (request.seed % 256,) * 3))

    def describe(self) -> dict[str, Any]:
        return {"fingerprint": "abc"}


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def client() -> TestClient:
    return TestClient(
        make_api(Brightness(), limits=Limits(body_bytes=5000, pixels=10_000)), raise_server_exceptions=False
    )


WHITE = encode(Image.new("RGB", (20, 10), "white"))


def assert_problem(response, status, words, field=None):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    assert problem.get("field") == field


def test_understand_takes_the_file_itself_or_a_form(client):
    raw = client.post("/v1/understand", content=WHITE, headers={"content-type": "image/png"})
    form = client.post("/v1/understand", files={"image": ("white.png", WHITE)})
    assert raw.status_code == form.status_code == 200
    assert raw.json() == form.json()
    assert raw.json()["top"] == "amusement"
    assert raw.json()["emotions"]["amusement"] == pytest.approx(1)
    assert raw.json()["scenes"] == [{"name": "sky", "score": 1.0}]


def test_unusual_images_are_converted(client):
    clear = encode(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))
    assert client.post("/v1/understand", content=clear).json()["top"] == "amusement"  # lies on white
    cmyk = encode(Image.new("CMYK", (9, 9), (0, 0, 0, 255)), "JPEG")
    assert client.post("/v1/understand", content=cmyk).json()["top"] == "sadness"


@pytest.mark.parametrize("body", [b"no image", WHITE[:40], b"<svg/>"])
def test_what_is_no_image_is_refused(client, body):
    assert_problem(client.post("/v1/understand", content=body), 422, "no usable image")


def test_an_empty_body(client):
    assert_problem(client.post("/v1/understand"), 422, "the body is empty")


def test_a_form_without_the_image(client):
    assert_problem(
        client.post("/v1/understand", files={"photo": ("a.png", WHITE)}), 422, "one file named image"
    )


def test_too_many_pixels_are_refused_before_decoding(client):
    bomb = encode(Image.new("1", (4000, 4000)))
    assert len(bomb) < 5000
    assert_problem(client.post("/v1/understand", content=bomb), 422, "no usable image")


@pytest.mark.parametrize(
    "send", [lambda body: body, lambda body: (body[i : i + 1000] for i in range(0, len(body), 1000))]
)
def test_a_large_body_is_refused_with_and_without_a_length(client, send):
    body = bytes(6000)
    assert_problem(client.post("/v1/understand", content=send(body)), 413, "larger than 5000 bytes")


def test_a_large_form_is_refused(client):
    assert_problem(
        client.post("/v1/understand", files={"image": ("a.png", bytes(6000))}), 413, "larger than 5000"
    )


def test_generate_gives_the_same_bytes_for_the_same_request(client):
    answers = [client.post("/v1/generate", json={"emotion": "awe", "seed": 7}) for _ in range(2)]
    assert answers[0].headers["content-type"] == "image/png"
    assert answers[0].content == answers[1].content
    assert Image.open(io.BytesIO(answers[0].content)).getpixel((0, 0)) == (7, 7, 7)


def test_generate_takes_weights(client):
    assert client.post("/v1/generate", json={"emotion": {"awe": 0.6, "fear": 0.4}}).status_code == 200


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"emotion": "joy"}, "unknown emotion 'joy'"),
        ({"emotion": {"awe": 0}}, "greater than 0"),
        ({"emotion": {}}, "at least 1"),
        ({"emotion": "awe", "prompt": "room"}, "the prompt needs {}"),
        ({"emotion": "awe", "prompt": "{}" * 200}, "at most 300"),
        ({"emotion": "awe", "steps": 101}, "less than or equal to 100"),
        ({"emotion": "awe", "seed": -1}, "greater than or equal to 0"),
        ({"emotion": "awe", "sed": 1}, "Extra inputs"),
        ({}, "Field required"),
    ],
)
def test_impossible_requests(client, request_, words):
    response = client.post("/v1/generate", json=request_)
    assert response.status_code == 422
    assert words in response.json()["detail"]
    assert response.json()["field"].split(".")[0] in {"emotion", "prompt", "steps", "seed", "sed"}


def test_an_emotion_that_the_model_never_saw(client):
    assert_problem(client.post("/v1/generate", json={"emotion": "disgust"}), 422, "no image of disgust")


def test_an_inner_error_tells_nothing(client):
    response = client.post("/v1/generate", json={"emotion": "awe", "seed": 13})
    assert_problem(response, 500, "could not be completed")
    assert "secret" not in response.text


def test_model_and_health(client):
    assert client.get("/v1/model").json()["limits"]["body_bytes"] == 5000
    assert client.get("/v1/model").json()["fingerprint"] == "abc"
    assert client.get("/healthz").json() == {"status": "ok"}
    assert_problem(client.get("/nowhere"), 404, "Not Found")


def test_the_description_names_every_path(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/understand", "/v1/generate", "/v1/model", "/healthz"}
    assert "multipart/form-data" in paths["/v1/understand"]["post"]["requestBody"]["content"]
