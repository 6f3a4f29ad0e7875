"""`/v1/understand` over a fake backend: three kinds of bodies, one kind of response, and refusals."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.service.fake import BLACK, WHITE, assert_problem, encode, make_fake
from uniemo_ray.service.settings import Limits

URL = "/v1/understand"


def test_a_file_a_form_and_json_give_the_same_answer(client):
    raw = client.post(URL, content=WHITE, headers={"content-type": "image/png"})
    form = client.post(URL, files={"image": ("white.png", WHITE)})
    text = client.post(URL, json={"images": [base64.b64encode(WHITE).decode()]})
    assert raw.status_code == form.status_code == text.status_code == 200, (raw.text, form.text, text.text)
    assert raw.json() == form.json() == text.json()
    answer = raw.json()
    assert answer["model"] == "abc"
    seen = answer["results"][0]
    assert (seen["top"], seen["valence"]) == ("amusement", "positive")
    assert seen["emotions"]["amusement"] == pytest.approx(1)
    assert seen["scenes"] == [{"name": "sky", "score": 1.0}, {"name": "street", "score": 0.0}]
    assert (seen["width"], seen["height"], seen["attention"]) == (20, 10, None)


def test_several_images_in_order(client):
    form = client.post(URL, files=[("image", ("a.png", WHITE)), ("image", ("b.png", BLACK))])
    tops = [seen["top"] for seen in form.json()["results"]]
    assert tops == ["amusement", "sadness"]


def test_attention_lies_over_the_centred_square(client):
    seen = client.post(f"{URL}?attention=true&names=1", content=WHITE).json()["results"][0]
    assert len(seen["scenes"]) == 1
    assert seen["attention"]["box"] == [5, 0, 15, 10]
    overlay = Image.open(io.BytesIO(base64.b64decode(seen["attention"]["scene"])))
    assert overlay.mode == "RGBA"
    alpha = np.asarray(overlay.getchannel("A"))
    assert alpha[0, 0] == 0
    assert alpha[-1, -1] == 220


def test_unusual_images_are_converted(client):
    clear = encode(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))
    assert client.post(URL, content=clear).json()["results"][0]["top"] == "amusement"  # lies on white
    cmyk = encode(Image.new("CMYK", (9, 9), (0, 0, 0, 255)), "JPEG")
    assert client.post(URL, content=cmyk).json()["results"][0]["top"] == "sadness"


@pytest.mark.parametrize("body", [b"no image", WHITE[:20], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(client, body):
    assert_problem(client.post(URL, content=body), 422, "damaged or not an image")


def test_a_drawing_is_refused_by_name(client):
    assert_problem(client.post(URL, content=b"<svg/>"), 422, "a drawing in SVG: convert it to JPEG or PNG")


@pytest.mark.parametrize(("kind", "media_type"), [("AVIF", "image/avif"), ("JPEG2000", "image/jp2")])
def test_pictures_of_phones_and_archives_are_understood(client, kind, media_type):
    clear = encode(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), kind)
    answer = client.post(URL, content=clear, headers={"content-type": media_type})
    assert answer.json()["results"][0]["top"] == "amusement"  # lies on white


def test_the_bad_one_of_several_is_named(client):
    bad = {"images": [base64.b64encode(data).decode() for data in (WHITE, b"no image")]}
    assert_problem(client.post(URL, json=bad), 422, "not an image", "images.1")
    cut = encode(Image.effect_noise((90, 90), 90).convert("RGB"))[:-2000]
    files = [("image", ("a.png", WHITE)), ("image", ("b.png", cut))]
    assert_problem(client.post(URL, files=files), 422, "truncated", "image.1")


def test_empty_bodies_and_forms(client):
    assert_problem(client.post(URL), 422, "the file is empty")
    assert_problem(client.post(URL, files={"photo": ("a.png", WHITE)}), 422, "files named image", "image")
    assert_problem(client.post(URL, files=[("image", ("a.png", WHITE))] * 17), 422, "more than 16", "image")
    assert_problem(client.post(URL, data={"image": "text"}), 415, "send an image")


@pytest.mark.parametrize(
    ("body", "status", "words", "field"),
    [
        ("{", 400, "JSON", None),
        ("{}", 422, "Field required", "images"),
        ('{"images": []}', 422, "at least 1", "images"),
        ('{"images": ["???"]}', 422, "Base64", "images.0"),
        (json.dumps({"images": ["aaaa"] * 17}), 422, "at most 16", "images"),
        ('{"images": ["aaaa"], "names": 21}', 422, "less than or equal to 20", "names"),
        ('{"images": ["aaaa"], "model": "other"}', 422, "unknown model", "model"),
        (json.dumps({"images": ["aaaa"] * 90}), 422, "more values", None),
        (json.dumps({f"a{i}": 1 for i in range(90)}), 422, "more values", None),
        ('{"images": ["aaaa"], "\\ud800": 1}', 400, "JSON", None),
    ],
)
def test_impossible_json(client, body, status, words, field):
    headers = {"content-type": "application/json"}
    assert_problem(client.post(URL, content=body, headers=headers), status, words, field)


def test_query_options_hold_where_json_names_none(client):
    body = {"images": [base64.b64encode(WHITE).decode()]}
    assert (
        len(client.post(f"{URL}?names=1", json={"images": body["images"]}).json()["results"][0]["scenes"])
        == 1
    )
    assert len(client.post(f"{URL}?names=1", json=body | {"names": 2}).json()["results"][0]["scenes"]) == 2


@pytest.mark.parametrize(("query", "field"), [("names=0", "names"), ("attention=perhaps", "attention")])
def test_impossible_options(client, query, field):
    response = client.post(f"{URL}?{query}", content=WHITE)
    assert (response.status_code, response.json()["field"]) == (422, field)


def test_other_kinds_of_content_are_refused(client):
    assert_problem(
        client.post(URL, content=b"a,b", headers={"content-type": "text/csv"}), 415, "send an image"
    )


@pytest.mark.parametrize(
    "send", [lambda body: body, lambda body: (body[i : i + 1000] for i in range(0, len(body), 1000))]
)
@pytest.mark.parametrize("kind", ["image/png", "application/json"])
def test_a_large_body_is_refused_with_and_without_a_length(client, send, kind):
    response = client.post(URL, content=send(bytes(60_000)), headers={"content-type": kind})
    assert_problem(response, 413, "larger than 50000 bytes")
    large = client.post(URL, files={"image": ("a.png", bytes(60_000))})
    assert_problem(large, 413, "larger than 50000 bytes")


def send_half(app, then) -> list[dict]:
    """What an ASGI client gets that sends only the beginning of a body."""
    sent: list[dict] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"image/png")],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5),
    }

    async def talk() -> None:
        chunks = iter([{"type": "http.request", "body": b"\x89PNG", "more_body": True}])

        async def receive() -> dict:
            return next(chunks, None) or await then()

        async def send(message: dict) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(talk())
    return sent


def test_a_body_that_does_not_arrive_times_out(generation_store):
    app, _ = make_fake(generation_store, limits=Limits(body_timeout_s=0.1))
    assert send_half(app, lambda: asyncio.sleep(60, {}))[0]["status"] == 408


def test_a_caller_that_leaves_during_a_body_causes_no_error(generation_store, caplog):
    app, _ = make_fake(generation_store)
    assert send_half(app, lambda: asyncio.sleep(0, {"type": "http.disconnect"})) == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n%s\r\n--x--\r\n' % WHITE, 200, ""),
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n%s\r\n' % WHITE, 400, "ends before"),
        (b"--x\r\n\r\n%s\r\n--x--\r\n" % WHITE, 422, "files named image"),
        (b"no form at all", 400, "not a multipart form"),
        (b"", 400, "ends before"),
    ],
)
def test_forms_as_they_come(client, body, status, words):
    response = client.post(URL, content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    if status == 200:
        assert response.json()["results"][0]["top"] == "amusement"
    else:
        assert_problem(response, status, words, response.json().get("field"))
