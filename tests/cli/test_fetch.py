"""`uniemo fetch` as a user runs it, against the stand-in hub."""

import os
import subprocess
import sys

import pytest

from tests.fetch.hub_server import running_hub
from tests.fetch.layout import offer_models
from tests.models.tiny import write_clip, write_pipeline

COMMAND = (sys.executable, "-m", "uniemo_ray.cli")
SMALL_CLIP = """
from tests.fetch.layout import CLIP
from uniemo_ray.fetch import sources
sources.PRESETS["vit_l14_sd15"] = (CLIP, sources.SD15)
from uniemo_ray.cli.app import main
main()
"""
"""The same command where the stand-in's small CLIP counts as L/14."""


def fetch(endpoint, target, *, command=(sys.executable, "-c", SMALL_CLIP), offline="0"):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline}
    return subprocess.run(
        [*command, "fetch", "--preset", "vit_l14_sd15", "--to", str(target)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_command(tmp_path):
    write_clip(tmp_path / "models" / "clip")
    write_pipeline(tmp_path / "models" / "diffusion")
    with running_hub() as server:
        offer_models(server, tmp_path / "models")
        done = fetch(server.endpoint, tmp_path / "to")
        assert done.returncode == 0, done.stderr
        assert f"--set diffusion.model={tmp_path / 'to'}/diffusion" in done.stdout
        assert "clip/open_clip_model.safetensors" in done.stderr
        assert not (tmp_path / "to" / ".uniemo-fetch").exists()
        offline = fetch(server.endpoint, tmp_path / "to", offline="1")
        assert offline.returncode == 2
        assert "HF_HUB_OFFLINE is set" in offline.stderr
        other = fetch(server.endpoint, tmp_path / "other", command=COMMAND)
        assert other.returncode == 2
        assert "another open_clip_model.safetensors than was pinned" in other.stderr
