"""Listing and downloading against a real HTTP server: ranges, hashes, tokens, refusals."""

import hashlib

import pytest

from tests.fetch.hub_server import HubServer, running_hub
from uniemo_ray.fetch import hub as hub_module
from uniemo_ray.fetch.hub import Hub

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def server():
    with running_hub() as running:
        running.add("org/model", "v1", {"config.json": b'{"a": 1}', "unet/weights.safetensors": WEIGHTS})
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(hub_module, "PAUSE_S", 0.0)


def test_a_revision_is_listed_with_hashes(server: HubServer):
    listing = Hub(server.endpoint).list("org/model", "v1")
    assert listing.commit == server.commits["org/model", "v1"]
    large, small = listing.files["unet/weights.safetensors"], listing.files["config.json"]
    assert (large.is_sha256, large.digest) == (True, hashlib.sha256(WEIGHTS).hexdigest())
    assert (small.is_sha256, small.size) == (False, 8)


def test_a_broken_download_goes_on_where_it_stopped(server: HubServer, tmp_path):
    hub, seen = Hub(server.endpoint), []
    listing = hub.list("org/model", "v1")
    server.cut_after = 4000
    path = hub.download(listing, "unet/weights.safetensors", tmp_path / "w", report=seen.append)
    assert path.read_bytes() == WEIGHTS
    assert server.served == [("unet/weights.safetensors", 0), ("unet/weights.safetensors", 4000)]
    assert seen[-1] == len(WEIGHTS)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_what_a_killed_process_left_is_used(server: HubServer, tmp_path):
    hub = Hub(server.endpoint)
    (tmp_path / "w.part").write_bytes(WEIGHTS[:100])
    hub.download(hub.list("org/model", "v1"), "unet/weights.safetensors", tmp_path / "w")
    assert server.served == [("unet/weights.safetensors", 100)]
    assert (tmp_path / "w").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["unet/weights.safetensors", "config.json"])
def test_other_bytes_than_stated_are_refused(server: HubServer, tmp_path, name):
    hub = Hub(server.endpoint)
    listing = hub.list("org/model", "v1")
    server.wrong.add(name)
    with pytest.raises(ValueError, match="has another hash than the hub states"):
        hub.download(listing, name, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []
    server.wrong.clear()
    assert hub.download(listing, name, tmp_path / "w").is_file()


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(server: HubServer, tmp_path):
    server.token = "secret"
    with pytest.raises(ValueError, match=r"wants a token with access to org/model.*HF_TOKEN"):
        Hub(server.endpoint).list("org/model", "v1")
    hub = Hub(server.endpoint, token="secret")
    hub.download(hub.list("org/model", "v1"), "unet/weights.safetensors", tmp_path / "w")
    assert server.tokens_at_storage == [None]


def test_what_is_not_there_is_named(server: HubServer, monkeypatch):
    with pytest.raises(ValueError, match="has no org/model at revision v9"):
        Hub(server.endpoint).list("org/model", "v9")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9 does not list org/model"):
        Hub("http://127.0.0.1:9").list("org/model", "v1")


def test_offline_is_said(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        Hub.from_environment()
