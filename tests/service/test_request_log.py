"""One JSON line a request, and one id of a request in its line, its header and its problem."""

import io
import json
import logging
import logging.handlers
from collections.abc import Iterator

import pytest

from tests.service.fake import WHITE, client_of, make_fake
from uniemo_ray.service.request_log import LOGGER, JsonLines, ServeLog, log_to
from uniemo_ray.service.tokens import TokenFile, add_token

INSENSIBLE = ("", "two words", "x" * 129, "a\tb", 'quote"', "{}")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service writes."""
    logger, stream = logging.getLogger(LOGGER), io.StringIO()
    before = logger.level, logger.handlers[:], logger.propagate
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log_to(handler, LOGGER)
    yield stream
    logger.level, logger.handlers[:], logger.propagate = before


def read(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_all_that_an_operator_asks_for(generation_store, tmp_path, lines):
    token = add_token(tmp_path / "tokens.json", "ann")
    app, _ = make_fake(generation_store, tokens=TokenFile(tmp_path / "tokens.json"))
    headers = {"authorization": f"Bearer {token}", "x-request-id": "shop-7"}
    response = client_of(app).post("/v1/understand", content=WHITE, headers=headers)
    (line,) = read(lines)
    assert line["time"].endswith("Z")
    assert line.pop("ms") >= 0
    assert {name: line[name] for name in line if name not in ("time", "message")} == {
        "level": "INFO",
        "request_id": "shop-7",
        "token": "ann",
        "method": "POST",
        "route": "/v1/understand",
        "status": 200,
    }
    assert response.headers["x-request-id"] == "shop-7"


def test_every_problem_names_its_request(client, lines):
    problems = [
        client.get("/nowhere"),
        client.get("/v1/generate"),
        client.post("/v1/generate", json={"emotion": "joy"}),
        client.post("/v1/generate", json={"emotion": "awe", "seed": 13}),  # an unexpected error
        client.post("/v1/generate", content=b"x" * 60_001, headers={"content-type": "application/json"}),
        client.get("/", headers={"origin": "http://elsewhere.example"}),
    ]
    ids = [problem.json()["request_id"] for problem in problems]
    assert [problem.headers["x-request-id"] for problem in problems] == ids
    assert len(set(ids)) == len(ids)
    assert [line["request_id"] for line in read(lines) if "request_id" in line] == ids
    (error,) = [line for line in read(lines) if line["level"] == "ERROR"]
    assert "RuntimeError" in error["trace"]


@pytest.mark.parametrize("sent", INSENSIBLE)
def test_an_id_that_does_not_belong_into_a_log_is_replaced(client, lines, sent):
    made = client.get("/healthz", headers={"x-request-id": sent}).headers["x-request-id"]
    assert made != sent
    assert len(made) == 32
    assert read(lines)[0]["request_id"] == made


def test_methods_of_the_callers_invention_do_not_become_metrics(client):
    client.request("PROPFIND", "/healthz")
    assert "PROPFIND" not in client.get("/metrics").text


def test_a_line_reaches_the_log_of_a_serve_replica_though_serve_holds_lines_back():
    stream, seen = io.StringIO(), []
    file = logging.StreamHandler(stream)
    file.setFormatter(
        logging.Formatter("%(request_id)s %(token)s %(route)s %(status)s %(ms)s %(time)s %(level)s")
    )
    held_back = logging.handlers.MemoryHandler(1000, target=file)
    held_back.addFilter(lambda record: seen.append(record.skip_context_filter) or True)
    ray_log = logging.getLogger("ray.serve")
    before = ray_log.handlers[:]
    ray_log.handlers[:] = [held_back]
    try:
        record = logging.makeLogRecord(
            {"msg": "a", "levelname": "INFO", "levelno": logging.INFO, "created": 0.0}
        )
        record.request = {"request_id": "r", "token": "t", "route": "/v1/model", "status": 200, "ms": 1.5}
        ServeLog().handle(record)
    finally:
        ray_log.handlers[:] = before
    assert stream.getvalue() == "r t /v1/model 200 1.5 1970-01-01T00:00:00.000Z INFO\n"
    assert seen == [True]
