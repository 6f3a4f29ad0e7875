"""Latents of the canonical shards, by the diffusion model that the settings name."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.models.tiny import write_pipeline, write_xl_pipeline
from uniemo_ray.data.images import to_unit_range
from uniemo_ray.distributed.shards.actors import diffusion
from uniemo_ray.distributed.shards.actors.diffusion import LATENT_BATCH, LatentActor
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.settings_file import load_config
from uniemo_ray.training.batches import encode_latent


def pictures(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    images = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG")
        images.append(file.getvalue())
    return pixels, pa.table({"image": images})


def make_actor(folder, *overrides):
    given = [f"diffusion.model={folder}", "diffusion.size_px=16", "diffusion.revision=a", *overrides]
    return LatentActor(load_config(None, given).diffusion)


@pytest.mark.parametrize("write", [write_pipeline, write_xl_pipeline])
def test_latents_are_the_named_vaes(write, tmp_path):
    folder = write(tmp_path)
    pixels, table = pictures(LATENT_BATCH + 1)
    found = make_actor(folder)(table)
    parts, squares = load_diffusion(str(folder)), to_unit_range(pixels)
    batches = squares[:LATENT_BATCH], squares[LATENT_BATCH:]
    expected = [encode_latent(latent) for batch in batches for latent in parts.encode_images(batch)]
    assert found["latent"].to_pylist() == expected


def test_nothing_but_the_vae_is_read(tmp_path):
    folder = write_xl_pipeline(tmp_path)
    others = [path for path in folder.rglob("*.safetensors") if path.parent.name != "vae"]
    assert len(others) == 3
    for path in others:
        save_file({}, path)  # loading it would fail
    assert make_actor(folder)(pictures(1)[1]).num_rows == 1


def test_the_vae_is_tuned_as_the_settings_say(tmp_path):
    folder = write_pipeline(tmp_path)
    actor = make_actor(folder, "diffusion.vae_slicing=true", "diffusion.channels_last=true")
    weights = [p for p in actor.vae.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    sizes = []
    actor.vae.encoder.register_forward_pre_hook(lambda _m, inputs: sizes.append(len(inputs[0])))
    actor(pictures(3)[1])
    assert sizes == [1] * 3


def test_sdxl_encodes_one_image_at_a_time():
    config = load_config(None, ["preset=vit_l14_sdxl", "data.kind=emoset", "data.root=x"])
    assert config.diffusion.vae_slicing


class TooLarge:
    """A generator whose micro-batch does not fit."""

    def __init__(self, model, **settings):
        pass

    def begin(self, columns):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("micro_batch", "threads", "advice"),
    [
        (8, 1, "set generation.micro_batch to 4 (it is 8), which makes other images"),
        (6, 2, "set generation.micro_batch to 2 (it is 6), which makes other images"),
        (4, 4, "set generation.micro_batch to 1 (it is 4), which makes other images"),
        (1, 1, "generation.micro_batch is 1 already, so use accelerators with more memory"),
    ],
)
def test_too_little_memory_names_a_micro_batch_that_may_fit(monkeypatch, micro_batch, threads, advice):
    monkeypatch.setattr(diffusion, "ImageGenerator", TooLarge)
    actor = diffusion.GenerateActor("model", threads)
    with pytest.raises(torch.OutOfMemoryError):
        actor(pa.table({"micro_batch": [micro_batch, micro_batch]}))
    assert actor.memory_advice == advice


def test_class_images_become_latents_with_labels_and_no_pictures(tmp_path):
    folder = write_pipeline(tmp_path)
    pixels, table = pictures(3)
    rows = {
        "image_id": ["a", "b", "c"],
        "emotion": ["awe", "fear", "awe"],
        "image": [*table["image"].to_pylist()[:2], None],
        "reason": [None, None, "non_finite"],
    }
    settings = load_config(None, [f"diffusion.model={folder}", "diffusion.size_px=16"]).diffusion
    found = diffusion.PriorActor(settings)(pa.table(rows))
    latents = load_diffusion(str(folder)).encode_images(to_unit_range(pixels[:2]))
    assert found.to_pydict() == {
        "image_id": ["a", "b"],
        "emotion": ["awe", "fear"],
        "latent": [encode_latent(latent) for latent in latents],
    }
