"""Weight files that the user provides."""

import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from uniemo_ray.metrics.weights import find_weights, has_weights, load_weights, read_checkpoint, tensors_of


class Harmful:
    """Leaves a file behind when somebody runs what is in a pickle of it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.mark,))


def with_digest(folder: Path, content: bytes) -> Path:
    """A file whose name has dashes of its own before the digest."""
    path = folder / f"net-of-2015-{sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


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


def test_the_one_file_that_is_there_is_found(tmp_path: Path) -> None:
    assert not has_weights(None, "a-*.pth")
    assert not has_weights(tmp_path, "a-*.pth")
    for name in ("a-1.pth", "b-1.pth"):
        (tmp_path / name).touch()
    assert has_weights(tmp_path, "a-*.pth")
    assert has_weights(str(tmp_path), "b-1.pth")
    assert not has_weights(tmp_path, "c-*.pth")
    assert find_weights(str(tmp_path), "a-*.pth", metric="fid") == tmp_path / "a-1.pth"


def test_a_file_must_match_the_digest_in_its_name(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"w": torch.arange(3)}, plain)
    digest = sha256(plain.read_bytes()).hexdigest()
    bad = tmp_path / "net-of-2015-01234567.pth"
    bad.write_bytes(plain.read_bytes())
    assert load_weights(with_digest(tmp_path, plain.read_bytes()))["w"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=f"damaged: its sha256 starts with {digest[:8]}, expected 01234567"):
        load_weights(bad)


def test_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    for content in ({"w": 3}, [torch.zeros(1)], {"w": torch.zeros(1), "epoch": 3}):
        torch.save(content, plain)
        named = with_digest(tmp_path, plain.read_bytes())
        with pytest.raises(ValueError, match=f"^{named} holds no plain state dict of tensors$"):
            load_weights(named)
    assert tensors_of({"w": torch.zeros(1)}, plain) == {"w": torch.zeros(1)}


@pytest.mark.parametrize("read", [load_weights, read_checkpoint])
def test_nothing_in_a_file_is_run_whatever_its_digest(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = with_digest(tmp_path, pickle.dumps({"w": Harmful(tmp_path / "run")}))
    with pytest.raises(ValueError, match=f"^{path} is damaged, or holds more than tensors") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02", bytes(1000), b"no pickle at all"])
def test_a_damaged_checkpoint_is_named_with_the_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any-name.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is damaged, or holds more than tensors \\(.{{6,200}}\\)$"):
        read_checkpoint(path)


def test_a_checkpoint_may_hold_plain_values_beside_its_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 90, "state_dict": {"w": torch.arange(3)}}, tmp_path / "any-name.pth")
    content = read_checkpoint(tmp_path / "any-name.pth")
    assert isinstance(content, dict)
    assert (content["epoch"], content["state_dict"]["w"].tolist()) == (90, [0, 1, 2])
