"""`uniemo serve`: what it refuses before a model is loaded; the server itself is tested with the wheel."""

import socket

import pytest
from typer.testing import CliRunner

from uniemo_ray.cli.app import app

pytestmark = pytest.mark.usefixtures("own_log")
runner = CliRunner()


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_one_line_before_the_model_is_looked_at(taken_port):
    result = runner.invoke(app, ["serve", "gone", "--port", str(taken_port)])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"error: cannot listen on 127.0.0.1 port {taken_port} (Address already in use)"
    )
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone"], "gone"),
        (["gone", "--host", "0.0.0.0"], "refusing to bind to 0.0.0.0 without tokens"),
        (["gone", "--host", "0.0.0.0", "--tokens", "nowhere.json"], "nowhere.json does not exist"),
        (["gone", "--host", "::1", "--store", "s3://"], "gone"),
    ],
)
def test_what_cannot_start_says_why(arguments, words):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    result = runner.invoke(app, ["serve", *arguments, "--port", str(port)])
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_port_that_is_none():
    assert runner.invoke(app, ["serve", "--port", "70000"]).exit_code == 2
