"""What HTTP clients expect: HEAD, prefixes, slashes at the end, media types, encodings, conditions."""

import gzip
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.fake import SLOW_SEED, WHITE, assert_problem, encode, make_fake
from tests.service.test_guard import OPEN
from uniemo_ray.service.tokens import TokenFile, add_token

PAGES = (*OPEN, "/v1/model", "/metrics")
JSON = {"content-type": "application/json"}
LARGE = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 100, 3), np.uint8)), "BMP")


def below(generation_store, prefix: str, **options: object) -> TestClient:
    app, _ = make_fake(generation_store, **options)
    return TestClient(app, root_path=prefix, base_url="http://127.0.0.1", client=("127.0.0.1", 5))


@pytest.mark.parametrize("url", PAGES)
def test_head_answers_as_get_without_a_body(client, url):
    get, head = client.get(url), client.head(url)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert client.head("/v1/generate").status_code == 405


def test_head_of_a_generation_ends_though_its_events_go_on(client):
    generation = client.post("/v1/generations", json={"emotion": "awe", "seed": SLOW_SEED}).json()
    url = f"/v1/generations/{generation['id']}"
    head = client.head(f"{url}/events")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert client.delete(url).status_code == 200
    assert client.head(url).status_code == 404


def test_a_prefix_changes_nothing_but_the_links(generation_store, tmp_path):
    token = add_token(tmp_path / "tokens.json", "ann")
    options = {"tokens": TokenFile(tmp_path / "tokens.json")}
    with below(generation_store, "/uniemo", **options) as client:
        for url in OPEN:
            assert client.get(f"/uniemo{url}").status_code == 200, url
        for url in ("/uniemo/page/main.js", "/uniemo/healthz/"):
            assert client.get(url).status_code == 200, url
        assert client.get("/uniemo").url.path == "/uniemo/"
        assert client.get("/uniemo/v1/model").status_code == 401
        client.headers["authorization"] = f"Bearer {token}"
        assert len(LARGE) > 25_000
        assert client.post("/uniemo/v1/understand", content=LARGE).status_code == 200
        assert client.get("/uniemo/openapi.json").json()["servers"] == [{"url": "/uniemo"}]
        created = client.post("/uniemo/v1/generations", json={"emotion": "awe"})
        path = created.headers["location"]
        assert path == f"/uniemo/v1/generations/{created.json()['id']}"
        events = client.get(f"{path}/events").text
        links = re.findall(r'"(?:preview_)?url":"([^"]+)"', events)
        assert len(links) == 2
        for link in links:
            assert client.get(link).status_code == 200, link


@pytest.mark.parametrize("body", [WHITE, LARGE])
def test_a_slash_at_the_end_leads_to_the_route_whatever_the_body(client, body):
    headers = {"content-type": "application/octet-stream"}
    away = client.post("/v1/understand/?names=1", content=body, headers=headers, follow_redirects=False)
    assert (away.status_code, away.headers["location"]) == (307, "/v1/understand?names=1")
    assert client.post("/v1/understand/", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP"])
@pytest.mark.parametrize("url", ["/v1/understand", "/v1/generate"])
def test_a_compressed_body_is_refused_as_such(client, url, encoding):
    headers = {"content-type": "image/png", "content-encoding": encoding}
    response = client.post(url, content=gzip.compress(WHITE), headers=headers)
    assert_problem(response, 415, "compressed")
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("url", ["/v1/generate", "/v1/generations"])
@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_json_without_its_header_is_told_which_to_send(client, url, kind):
    headers = {} if kind is None else {"content-type": kind}
    response = client.post(url, content=b'{"emotion": "awe"}', headers=headers)
    assert_problem(response, 415, "Content-Type: application/json")
    good = client.post(
        url, content=b'{"emotion": "awe"}', headers={"content-type": "application/json; charset=utf-8"}
    )
    assert good.status_code in (200, 202)


def test_a_body_that_is_not_what_it_says_is_told_what_to_send(client):
    url = "/v1/understand"
    for kind in ("", "image/png", "application/octet-stream"):
        headers = {"content-type": kind} if kind else {}
        response = client.post(url, content=b'{"images": []}', headers=headers)
        assert_problem(response, 415, "Content-Type: application/json")
        assert_problem(client.post(url, content=b"--x\r\n", headers=headers), 415, "multipart/form-data")
    for kind in ("text/csv", "application/x-www-form-urlencoded"):
        response = client.post(url, content=WHITE, headers={"content-type": kind})
        assert_problem(response, 415, "Content-Type: application/octet-stream")
    assert_problem(client.post(url, content=WHITE, headers=JSON), 415, "application/octet-stream")
    response = client.post(url, content=WHITE, headers={"content-type": "image/jpeg"})
    assert_problem(response, 415, "Content-Type: image/png")


@pytest.mark.parametrize("url", ["/", "/docs", "/favicon.ico", "/page/main.js"])
def test_a_file_that_a_browser_has_is_not_sent_again(client, url):
    first = client.get(url)
    etag = first.headers["etag"]
    for known in (etag, f'"old", W/{etag}', "*"):
        again = client.get(url, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(url, headers={"if-none-match": '"old"'}).status_code == 200


def test_lengths_are_counted_in_characters(client):
    response = client.post("/v1/generate", json={"emotion": "awe", "prompt": "{}" + "x" * 300})
    assert_problem(response, 422, "at most 300 characters", "prompt")


def test_sides_are_multiples_of_what_the_model_page_says(client):
    multiple = client.get("/v1/model").json()["pixels_multiple"]
    assert multiple == 8
    for side, status in ((multiple, 200), (multiple * 9, 200), (68, 422)):
        assert client.post("/v1/generate", json={"emotion": "awe", "width": side}).status_code == status
