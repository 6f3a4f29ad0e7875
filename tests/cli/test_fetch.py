"""`uniemo fetch` as a user runs it, against the stand-in hub."""

import os
import subprocess
import sys

from tests.fetch.hub_server import running_hub
from tests.fetch.layout import offer_models
from tests.models.tiny import write_clip, write_pipeline


def test_the_command(tmp_path):
    write_clip(tmp_path / "models" / "clip")
    write_pipeline(tmp_path / "models" / "diffusion")
    with running_hub() as server:
        offer_models(server, tmp_path / "models")
        environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "uniemo_ray.cli", "fetch", "--preset", "vit_l14_sd15"]
        done = subprocess.run(
            [*command, "--to", str(tmp_path / "to")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"--set diffusion.model={tmp_path / 'to'}/diffusion" in done.stdout
        assert "clip/open_clip_model.safetensors" in done.stderr
        assert not (tmp_path / "to" / ".uniemo-fetch").exists()
        environment["HF_HUB_OFFLINE"] = "1"
        offline = subprocess.run(
            [*command, "--to", str(tmp_path / "to")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert offline.returncode == 2
        assert "HF_HUB_OFFLINE is set" in offline.stderr
