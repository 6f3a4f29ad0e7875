"""Access control, rate limits, the request log and the headers of every response."""

import json
import logging

import pytest
from fastapi.testclient import TestClient

from tests.service.fake import SLOW_SEED, WHITE, assert_problem, client_of, make_fake
from uniemo_ray.service.api.guard import Guard, is_loopback
from uniemo_ray.service.request_log import log_fields
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile, add_token, revoke_token

PRIVATE = ("/v1/model", "/metrics")
OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/page/style.css", "/favicon.ico")


@pytest.mark.parametrize(
    ("base_url", "client", "status"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 200),
        ("http://localhost:8000", "::1", 200),
        ("http://[::1]:8000", "::1", 200),
        ("http://127.0.0.1", "192.168.0.7", 403),  # somebody else on the network
        ("http://192.168.0.8", "127.0.0.1", 403),
        ("http://rebound.example", "127.0.0.1", 403),  # a page elsewhere under an address of ours
    ],
)
def test_without_tokens_only_this_machine_is_served(generation_store, base_url, client, status):
    app, _ = make_fake(generation_store)
    response = TestClient(app, base_url=base_url, client=(client, 5)).get("/v1/model")
    assert response.status_code == status
    if status == 403:
        assert_problem(response, 403, "without a token file")


def test_a_foreign_host_name_is_refused_though_the_connection_is_local(generation_store):
    app, _ = make_fake(generation_store)
    response = client_of(app).get("/healthz", headers={"host": "uniemo.example"})
    assert_problem(response, 403, "without a token file")


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:9999"])
def test_pages_of_other_sites_are_refused(client, origin):
    assert_problem(
        client.post("/v1/understand", content=WHITE, headers={"origin": origin}), 403, "other sites"
    )
    ours = client.post("/v1/understand", content=WHITE, headers={"origin": "http://127.0.0.1"})
    assert ours.status_code == 200
    assert "access-control-allow-origin" not in ours.headers


@pytest.mark.parametrize("name", ["host", "origin"])
@pytest.mark.parametrize("is_first", [True, False])
def test_each_of_two_headers_counts(client, name, is_first):
    ours = {"host": "127.0.0.1", "origin": "http://127.0.0.1"}
    theirs = {"host": "uniemo.example", "origin": "https://elsewhere.example"}
    values = [theirs[name], ours[name]] if is_first else [ours[name], theirs[name]]
    others = [(key, value) for key, value in ours.items() if key != name]
    assert client.get("/v1/model", headers=[*others, (name, ours[name])]).status_code == 200
    twice = client.get("/v1/model", headers=[*others, *((name, value) for value in values)])
    assert twice.status_code == 403


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.json"
    return path, {name: add_token(path, name) for name in ("ann", "bob")}


def test_tokens_are_valid_from_any_machine_and_can_be_revoked(generation_store, tokens):
    path, secrets = tokens
    now = [0.0]
    app, _ = make_fake(generation_store, tokens=TokenFile(path, clock=lambda: now[0]))
    client = TestClient(app, base_url="http://uniemo.example", client=("192.168.0.7", 5))
    for url in PRIVATE:
        for wrong in ({}, {"authorization": "Bearer uniemo_x"}, {"authorization": f"Basic {secrets['ann']}"}):
            response = client.get(url, headers=wrong)
            assert_problem(response, 401, "valid token")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get(url, headers={"authorization": f"Bearer {secrets['ann']}"}).status_code == 200
    for url in OPEN:
        assert client.get(url).status_code == 200, url
    revoke_token(path, "ann")
    now[0] += 2
    assert client.get(PRIVATE[0], headers={"authorization": f"Bearer {secrets['ann']}"}).status_code == 401
    assert client.get(PRIVATE[0], headers={"authorization": f"Bearer {secrets['bob']}"}).status_code == 200


def test_a_body_is_not_read_before_the_token(generation_store, tokens):
    app, _ = make_fake(generation_store, tokens=TokenFile(tokens[0]))

    assert client_of(app).get("/v1/model").status_code == 401
    large = client_of(app).post("/v1/understand", content=bytes(60_000))
    assert large.status_code == 401  # and not 413


def test_a_generation_is_its_token_owners_alone(generation_store, tokens):
    path, secrets = tokens
    app, _ = make_fake(generation_store, tokens=TokenFile(path))
    ann, bob = ({"authorization": f"Bearer {secrets[name]}"} for name in ("ann", "bob"))
    with client_of(app) as client:
        generation = client.post("/v1/generations", json={"emotion": "awe"}, headers=ann).json()
        url = f"/v1/generations/{generation['id']}"
        assert client.get(url, headers=ann).status_code == 200
        for suffix in ("", "/events", "/images/0", "/previews/0"):
            assert client.get(url + suffix, headers=bob).status_code == 404
        assert client.delete(url, headers=bob).status_code == 404


def test_rates_are_each_callers_own(generation_store, tokens):
    path, secrets = tokens
    app, _ = make_fake(generation_store, tokens=TokenFile(path), limits=Limits(requests_per_minute=12))
    client = client_of(app)
    ann, bob = ({"authorization": f"Bearer {secrets[name]}"} for name in ("ann", "bob"))
    answers = [client.get("/v1/model", headers=ann) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert_problem(answers[-1], 429, "more than 12 requests per minute")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 5
    assert client.get("/v1/model", headers=bob).status_code == 200
    assert {client.get("/healthz").status_code for _ in range(20)} == {200}


def test_every_answer_is_hardened(client):
    for response in (client.get("/"), client.get("/nowhere"), client.post("/v1/understand", content=WHITE)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["referrer-policy"] == "no-referrer"
    assert client.get("/v1/model").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/v1/model"])
def test_nobody_without_a_token_locks_others_out(generation_store, tokens, path):
    """Addresses have limits of their own, for open pages and for guesses of tokens."""
    file, secrets = tokens
    app, _ = make_fake(generation_store, tokens=TokenFile(file), limits=Limits(requests_per_minute=12))
    first, second = (
        TestClient(app, base_url="http://a.example", client=(host, 5)) for host in ("9.9.9.9", "8.8.8.8")
    )
    usual = 200 if path == "/" else 401
    assert [first.get(path).status_code for _ in range(5)] == [usual] * 3 + [429] * 2
    assert second.get(path).status_code == usual
    name, secret = next(iter(secrets.items()))
    assert first.get("/v1/model", headers={"authorization": f"Bearer {secret}"}).status_code == 200, name


@pytest.mark.parametrize(
    ("headers", "behind_haproxy", "wanted"),
    [
        ([], False, "10.0.0.1"),
        ([("x-forwarded-for", "9.9.9.9")], False, "10.0.0.1"),  # anybody can claim an address
        ([("x-forwarded-for", "1.1.1.1, 9.9.9.9")], True, "9.9.9.9"),
        ([("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "9.9.9.9")], True, "9.9.9.9"),
        ([("x-forwarded-for", "2001:db8:1:2:3:4:5:6")], True, "2001:db8:1:2::/64"),
        ([("x-forwarded-for", "nonsense")], True, "unknown"),
        ([], True, "10.0.0.1"),
    ],
)
def test_the_address_of_a_caller(headers, behind_haproxy, wanted):
    guard = Guard(
        None,
        tokens=None,
        rate_limiter=None,
        metrics=None,
        sends_request_id=True,
        behind_haproxy=behind_haproxy,
    )
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert guard._address({"type": "http", "client": ("10.0.0.1", 5), "headers": raw}) == wanted


def test_logs_hold_no_token_no_prompt_and_no_id(generation_store, tokens, caplog):
    path, secrets = tokens
    app, _ = make_fake(generation_store, tokens=TokenFile(path))
    headers = {"authorization": f"Bearer {secrets['ann']}"}
    with caplog.at_level(logging.DEBUG, logger="uniemo_ray.service"), client_of(app) as client:
        client.post("/v1/generate", json={"emotion": "awe", "prompt": "{} secretgarden"}, headers=headers)
        generation = client.post("/v1/generations", json={"emotion": "awe"}, headers=headers).json()
        client.get(f"/v1/generations/{generation['id']}", headers=headers)
        client.get("/v1/model?model=secretgarden", headers=headers)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("uniemo_ray.service")]
    lines += [json.dumps(log_fields(record)) for record in caplog.records]
    assert any(line.startswith("POST /v1/generate 200") and line.endswith("ann") for line in lines), lines
    assert any("GET /v1/generations/{id} 200" in line for line in lines), lines
    for hidden in (secrets["ann"], "secretgarden", generation["id"]):
        assert not any(hidden in line for line in lines)


def test_metrics_count_requests_images_and_work(served):
    client, _ = served
    client.post("/v1/understand", content=WHITE)
    client.post("/v1/generate", json={"emotion": {"awe": 1, "fear": 3}, "n": 2})
    client.post("/v1/generate", json={"emotion": "joy"})
    generation = client.post("/v1/generations", json={"emotion": "awe", "seed": SLOW_SEED}).json()
    lines = client.get("/metrics").text.splitlines()
    client.delete(f"/v1/generations/{generation['id']}")
    for line in (
        'uniemo_requests_total{method="POST",route="/v1/generate",status="200"} 1.0',
        'uniemo_requests_total{method="POST",route="/v1/generate",status="422"} 1.0',
        'uniemo_images_total{emotion="amusement",work="understand"} 1.0',
        'uniemo_images_total{emotion="fear",work="generate"} 2.0',
        'uniemo_batch_images_count{work="generate"} 2.0',
        "uniemo_unfinished_generations 1.0",
        'uniemo_images_in_progress{work="generate"} 1.0',
        'uniemo_images_in_progress{work="understand"} 0.0',
        "uniemo_active_requests 1.0",
    ):
        assert line in lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        (None, True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_means_this_machine(host, expected):
    assert is_loopback(host) is expected
