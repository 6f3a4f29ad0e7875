"""PNG text: what goes in comes out, and the same input gives the same bytes."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uniemo_ray import devices
from uniemo_ray.inference.provenance import (
    GeneratedImage,
    canonical_json,
    encode_png,
    library_versions,
    read_provenance,
    sha256_hex,
)
from uniemo_ray.inference.xmp import from_xmp, to_xmp

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_pixels_and_text_survive() -> None:
    entries = {"seed": -7, "prompt": "<emotion> room, naïve ☂", "guidance": 4.5, "scene": None}
    png = encode_png(PIXELS, entries)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert read_provenance(png) == entries | {"pixels_sha256": sha256_hex(PIXELS.tobytes())}


def test_order_of_entries_does_not_matter() -> None:
    assert encode_png(PIXELS, {"a": 1, "b": 2}) == encode_png(PIXELS, {"b": 2, "a": 1})
    assert encode_png(PIXELS, {"a": 1}) != encode_png(PIXELS, {"a": 2})


def test_foreign_pictures_have_none() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG")
    assert read_provenance(buffer.getvalue()) == {}


def test_an_opened_picture_is_read_too() -> None:
    assert read_provenance(Image.open(io.BytesIO(encode_png(PIXELS, {"seed": 3}))))["seed"] == 3


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_prompt_survives(prompt: str) -> None:
    assert read_provenance(encode_png(PIXELS, {"prompt": prompt}))["prompt"] == prompt


def test_versions_name_what_decides_the_bytes() -> None:
    assert '"torch":"' in library_versions()
    assert '"diffusers":"' in library_versions()
    assert canonical_json({"b": 1, "a": [1, 2]}) == '{"a":[1,2],"b":1}'


def test_versions_name_the_gpu_its_driver_and_its_arithmetic(monkeypatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(devices, "driver_version", lambda: "580.65.06")
    monkeypatch.setattr(devices, "has_tf32", lambda: False)
    said = json.loads(library_versions("cuda", {"dtype": "bf16"}))
    assert (said["gpu"], said["driver"], said["tf32"]) == ("NVIDIA H100", "580.65.06", False)
    assert (said["processor"], said["dtype"]) == ("cuda", "bf16")
    assert set(said) == set(json.loads(library_versions())) | {"gpu", "driver", "cuda", "tf32", "dtype"}


def test_saving_keeps_provenance_and_bytes(tmp_path) -> None:
    png = encode_png(PIXELS, {"seed": 3, "prompt": "<emotion> ☂"})
    image = GeneratedImage.from_png(png)
    image.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == png
    assert image.provenance["prompt"] == "<emotion> ☂"
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    image.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as other:
        assert other.format == "JPEG"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_without_text_chunks_carry_xmp(kind: str) -> None:
    image = GeneratedImage.from_png(encode_png(PIXELS, {"seed": 3, "prompt": 'a "room" & <emotion> ☂'}))
    first, second = io.BytesIO(), io.BytesIO()
    image.save(first, kind, quality=90)
    image.save(second, kind, quality=90)
    assert first.getvalue() == second.getvalue()
    assert read_provenance(first.getvalue()) == image.provenance
    assert image.provenance["prompt"] == 'a "room" & <emotion> ☂'


@pytest.mark.parametrize("packet", [b"", b"<x", b"\xff\xfe", to_xmp({})[:90], b"<a/>"])
def test_foreign_or_damaged_xmp_is_empty(packet: bytes) -> None:
    assert from_xmp(packet) == {}
