"""Compact model folders: small, the same model, and only with the base weights they were trained on."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from uniemo_ray import UniEmo
from uniemo_ray.inference.checksums import CHECKSUMS, verify
from uniemo_ray.inference.compact import from_eight_bits, save_compact, to_eight_bits
from uniemo_ray.shipped import SHIPPED_FOLDER


def test_eight_bits_round_to_a_127th_of_the_rows_largest() -> None:
    torch.manual_seed(0)
    state = {
        "w": torch.randn(3, 4, 5),
        "zero": torch.zeros(2, 2),
        "b": torch.randn(7),
        "scale": torch.ones(1),
    }
    small = to_eight_bits(state)
    assert small["w"].dtype == small["zero"].dtype == torch.int8
    back = from_eight_bits(small)
    assert back.keys() == state.keys()
    error = (back["w"] - state["w"]).abs().flatten(1).amax(dim=1)
    assert (error <= state["w"].abs().flatten(1).amax(dim=1) / 127 / 2 + 1e-6).all()
    assert error.max() > 0
    assert all(torch.equal(back[name], state[name]) for name in ("zero", "b", "scale"))
    again = from_eight_bits(to_eight_bits(back))
    torch.testing.assert_close(again["w"], back["w"], rtol=1e-6, atol=0)
    assert from_eight_bits(state) == state


def test_the_shipped_model_is_small_and_whole() -> None:
    size = sum(path.stat().st_size for path in SHIPPED_FOLDER.rglob("*") if path.is_file())
    assert size < 5_000_000
    assert not (SHIPPED_FOLDER / "clip").exists()
    assert verify(SHIPPED_FOLDER) == UniEmo.from_pretrained("tiny").parts.fingerprint


@pytest.mark.slow
def test_saved_in_full_and_made_compact_again_it_is_the_same_model(tmp_path: Path) -> None:
    shipped = UniEmo.from_pretrained("tiny")
    shipped.save_pretrained(tmp_path / "full")
    assert (tmp_path / "full" / "diffusion").is_dir()
    save_compact(tmp_path / "full", tmp_path / "small")
    small = UniEmo.from_pretrained(tmp_path / "small")
    wanted = shipped.net.state_dict()
    for name, tensor in small.net.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-7, msg=name)
    assert small.parts.card == shipped.parts.card
    assert small.parts.space.counts.tolist() == shipped.parts.space.counts.tolist()


def test_other_base_models_have_no_compact_form(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only models on encoder\.clip 'tiny'"):
        save_compact(model_folder, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_another_base_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED_FOLDER, tmp_path / "copy"))
    sums = json.loads((copy / CHECKSUMS).read_text())
    name = "diffusion/unet/config.json"
    (copy / CHECKSUMS).write_text(json.dumps(sums | {name: "0" * 64}))
    with pytest.raises(ValueError, match=r"unet/config\.json is damaged or was changed"):
        verify(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"base": "large"}))
    with pytest.raises(ValueError, match="based on 'large', expected 'tiny'"):
        verify(copy)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists"):
        save_compact(SHIPPED_FOLDER, tmp_path)
