"""`uniemo import-checkpoint` and `uniemo export-checkpoint`."""

import torch
from typer.testing import CliRunner

from tests.inference.test_released import checkpoint, clip_folder, sizes_of
from tests.models.released_code import random_checkpoint, released_forward
from uniemo_ray.cli.app import app
from uniemo_ray.inference.model_folder import load_model_folder
from uniemo_ray.inference.released import read_released, write_released

__all__ = ["checkpoint", "clip_folder"]
runner = CliRunner()


def arguments(clip_folder, path, out):
    own = [f"encoder.clip={clip_folder}", "encoder.clip_pretrained=null"]
    options = [word for setting in own for word in ("--set", setting)]
    return ["import-checkpoint", str(path), "--preset", "vit_l14_sd15_released", "--out", str(out), *options]


def test_in_and_out_again(clip_folder, checkpoint, tmp_path):
    write_released(checkpoint, tmp_path / "best.pth")
    result = runner.invoke(app, arguments(clip_folder, tmp_path / "best.pth", tmp_path / "model"))
    assert result.exit_code == 0, result.exception
    assert "tensors from" in result.stdout
    assert "untrained: fusion, condition_head" in result.stdout
    assert "left out: 4 tensors" in result.stdout
    assert "makes none" in result.stdout
    out = runner.invoke(
        app, ["export-checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "back.pth")]
    )
    assert out.exit_code == 0, out.exception
    pixels = torch.randn(1, 3, 32, 32)
    expected = released_forward(read_released(tmp_path / "back.pth"), pixels, layers=6).logits
    with torch.no_grad():
        logits = load_model_folder(tmp_path / "model").net.understand(pixels).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_mistakes_are_named(clip_folder, tmp_path):
    result = runner.invoke(app, arguments(clip_folder, tmp_path / "none.pth", tmp_path / "model"))
    assert "none.pth does not exist" in str(result.exception)
    words = arguments(clip_folder, tmp_path / "none.pth", tmp_path / "model")
    words[words.index("vit_l14_sd15_released")] = "vit_z"
    result = runner.invoke(app, words)
    assert "there is no preset 'vit_z': expected one of baselines, demo" in str(result.exception)
    assert "vit_l14_sd15_released" in str(result.exception)


def test_a_condition_that_is_not_the_released_one_is_told(clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    write_released(sections, tmp_path / "stage2")
    for match, is_told in (("projected", True), ("mapped", False)):
        words = arguments(clip_folder, tmp_path / "stage2", tmp_path / match)
        for setting in ("diffusion.text_widths=[16]", f"fusion.match={match}", "fusion.condition_head=own"):
            words += ["--set", setting]
        words.append("--no-diffusion")
        result = runner.invoke(app, words)
        assert result.exit_code == 0, result.exception
        assert ("unlike in the released code" in result.stdout) == is_told
