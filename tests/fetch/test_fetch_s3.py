"""A preset's weights from the stand-in hub straight into a bucket, and from there into the loaders."""

import pytest
import torch

from tests.fetch.hub_server import running_hub
from tests.fetch.layout import CLIP, offer_models
from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.fetch.fetch import RECORD, fetch
from uniemo_ray.fetch.hub import Hub
from uniemo_ray.fetch.sources import SD15
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.store.filesystem import open_store

pytestmark = pytest.mark.integration


def test_what_lies_in_a_bucket_is_what_the_loaders_read(s3_uri, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip")
    write_pipeline(tmp_path / "diffusion")
    store = open_store(s3_uri)
    with running_hub() as server:
        offer_models(server, tmp_path)
        first = fetch((CLIP, SD15), store, hub=Hub(server.endpoint), scratch=tmp_path / "scratch")
        again = fetch((CLIP, SD15), store, hub=Hub(server.endpoint), scratch=tmp_path / "scratch")
    assert (again.files, again.kept) == (0, first.files)
    assert store.read_json(RECORD)["complete"] is True
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_clip(f"{s3_uri}/clip").image_size_px == 32
    loaded, original = load_diffusion(f"{s3_uri}/diffusion"), load_diffusion(str(tmp_path / "diffusion"))
    for name in ("denoiser", "vae", "text_encoder"):
        mine, theirs = getattr(loaded, name).state_dict(), getattr(original, name).state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
