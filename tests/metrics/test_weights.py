"""Weight files that the user provides."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch

from uniemo_ray.metrics.weights import find_weights, load_weights


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"lpips_alex needs a-\*\.pth in evaluation\.weights_dir, which is not set"
    ):
        find_weights(None, "a-*.pth", metric="lpips_alex")
    with pytest.raises(ValueError, match="found no such file in"):
        find_weights(tmp_path, "a-*.pth", metric="fid")
    for name in ("a-1.pth", "a-2.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"found a-1\.pth, a-2\.pth in .*exactly one"):
        find_weights(tmp_path, "a-*.pth", metric="fid")


def test_a_file_must_match_the_digest_in_its_name(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"w": torch.arange(3)}, plain)
    digest = sha256(plain.read_bytes()).hexdigest()
    good, bad = tmp_path / f"net-{digest[:8]}.pth", tmp_path / "net-01234567.pth"
    for path in (good, bad):
        path.write_bytes(plain.read_bytes())
    assert load_weights(good)["w"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=f"damaged: its sha256 starts with {digest[:8]}, expected 01234567"):
        load_weights(bad)


def test_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"w": 3}, plain)
    named = tmp_path / f"net-{sha256(plain.read_bytes()).hexdigest()[:8]}.pth"
    plain.rename(named)
    with pytest.raises(ValueError, match="no plain state dict"):
        load_weights(named)
