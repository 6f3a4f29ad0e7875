"""`uniemo fetch` as a user runs it, against the stand-in hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fetch.hub_server import running_hub
from tests.fetch.layout import offer_models
from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.cli.fetch import how_to_use
from uniemo_ray.cli.sent_folder import check_folder, is_sent

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


def test_a_folder_that_would_be_sent_with_every_job_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, note, warning = how_to_use(Path("models"), "models", "vit_l14_sd15")
    assert f"--set encoder.clip={tmp_path}/models/clip" in settings
    assert "jobs on other machines need it under the same path" in note
    assert warning.startswith(f"warning: {tmp_path}/models lies in the current folder")
    (tmp_path / ".rayignore").write_text("/models/\n")
    assert len(how_to_use(Path("models"), "models", "vit_l14_sd15")) == 2
    assert len(how_to_use(tmp_path.parent / "elsewhere", "elsewhere", "vit_l14_sd15")) == 2
    (in_storage,) = how_to_use(None, "s3://bucket/models", "vit_l14_sd15")
    assert "--set diffusion.model=s3://bucket/models/diffusion" in in_storage


def test_what_fetch_leaves_in_a_checkout_is_not_sent():
    root = Path(__file__).parents[2]
    assert not is_sent(root / "models", root)
    assert not is_sent(root / "models" / "sdxl", root)
    assert is_sent(root / "uniemo_ray", root)
    check_folder(root)
