"""Pickled weights become safetensors, and nothing in them runs."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

from uniemo_ray.fetch.convert import convert_to_safetensors


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    (tmp_path / "old.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    torch.save({"weight": Evil()}, tmp_path / "new.bin")
    for name in ("old.bin", "new.bin"):
        with pytest.raises(ValueError, match=rf"{name} holds more than plain tensors"):
            convert_to_safetensors(tmp_path / name, tmp_path / "out.safetensors")
    torch.save({"a": 3}, tmp_path / "number.bin")
    with pytest.raises(ValueError, match=r"number\.bin is no table of tensors"):
        convert_to_safetensors(tmp_path / "number.bin", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_tensors_that_share_memory_are_converted(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": weight, "b": weight.T}, tmp_path / "tied.bin")
    found = load_file(convert_to_safetensors(tmp_path / "tied.bin", tmp_path / "t.safetensors"))
    assert torch.equal(found["a"], weight)
    assert torch.equal(found["b"], weight.T)


def test_the_older_file_format_is_read_too(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    found = load_file(convert_to_safetensors(tmp_path / "old.bin", tmp_path / "t.safetensors"))
    assert torch.equal(found["a"], torch.ones(3))
