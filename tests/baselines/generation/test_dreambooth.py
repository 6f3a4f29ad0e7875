"""DreamBooth's step against its definition: the images' error, and weighted that of the class images."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tests.baselines.generation.reference import denoising_errors
from tests.baselines.generation.test_inversion import random, raw, stage
from uniemo_ray.baselines.generation.batches import LatentBatches
from uniemo_ray.baselines.generation.dreambooth import (
    DreamBoothObjective,
    PriorBatches,
    build_dreambooth,
    read_prior,
)
from uniemo_ray.baselines.generation.painters import TunedPainter
from uniemo_ray.config import DiffusionConfig
from uniemo_ray.emotions import MIKELS
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.batches import encode_latent

OWN, CLASSES = ("a photo of sks lion", "a photo of sks toy"), ("a photo of lion", "a photo of toy")


def batch(*, with_prior: bool) -> dict[str, Tensor]:
    found = {"latents": random(3, 4, 8, 8, seed=1), "emotion": torch.tensor([1, 0, 1])}
    return found | ({"class_latents": random(3, 4, 8, 8, seed=2)} if with_prior else {})


def hidden(parts: DiffusionParts, prompts: list[str]) -> Tensor:
    ids = parts.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    return parts.text_encoder(ids).last_hidden_state


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_one_step_with_prior_preservation_equals_its_definition(
    diffusion: DiffusionParts, weight: float
) -> None:
    diffusion.denoiser.requires_grad_(True)
    given = batch(with_prior=True)
    torch.manual_seed(3)
    found = DreamBoothObjective(diffusion, OWN, CLASSES, weight=weight)(given)
    found["loss"].backward()
    mine = [p.grad.clone() for p in diffusion.denoiser.parameters() if p.grad is not None]
    diffusion.denoiser.zero_grad()

    prompts = [OWN[1], OWN[0], OWN[1], CLASSES[1], CLASSES[0], CLASSES[1]]
    both = torch.cat([given["latents"], given["class_latents"]])
    errors = denoising_errors(diffusion, both, hidden(diffusion, prompts), seed=3)
    expected = errors[:3].mean() + weight * errors[3:].mean()
    expected.backward()
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["instance_loss"], errors[:3].mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["prior_loss"], errors[3:].mean(), atol=1e-5, rtol=1e-5)
    theirs = [p.grad for p in diffusion.denoiser.parameters() if p.grad is not None]
    assert len(mine) == len(theirs) > 20
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_without_class_images_it_is_the_diffusion_loss(diffusion: DiffusionParts) -> None:
    given = batch(with_prior=False)
    torch.manual_seed(3)
    found = DreamBoothObjective(diffusion, OWN, CLASSES, weight=1.0)(given)
    prompts = [OWN[1], OWN[0], OWN[1]]
    expected = denoising_errors(diffusion, given["latents"], hidden(diffusion, prompts), seed=3).mean()
    assert found.keys() == {"loss"}
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_text", [False, True])
def test_the_text_encoder_trains_only_when_it_is_asked_to(diffusion: DiffusionParts, with_text: bool) -> None:
    section = "generation_baselines.dreambooth"
    settings = stage(
        "dreambooth",
        f"{section}.train_text_encoder={str(with_text).lower()}",
        f"{section}.prior_preservation=false",
    )
    parts = build_dreambooth(settings, diffusion, "cpu")
    assert list(parts.exports) == (["denoiser", "text_encoder"] if with_text else ["denoiser"])
    parts.objective(batch(with_prior=False))["loss"].backward()
    grads = [p.grad for p in diffusion.text_encoder.parameters()]
    assert any(grad is not None for grad in grads) == with_text
    assert all(p.grad is not None for p in diffusion.denoiser.parameters())
    trained = {id(p) for group in parts.groups for p in group["params"]}
    assert trained == {id(p) for p in parts.objective.parameters()}


def test_each_image_gets_a_class_image_of_its_own_label() -> None:
    numbers = torch.arange(4)[:, None, None, None].expand(-1, 4, 8, 8) / 16
    classes = tuple((numbers + label).half() for label in range(8))
    batches = PriorBatches(latents=LatentBatches(space=MIKELS, seed=0), classes=classes)
    rows = raw(*["awe", "fear", "anger"] * 8)
    first, later = (batches(rows, epoch=epoch, is_training=True).tensors for epoch in (0, 1))
    assert first["class_latents"].dtype == torch.float32
    drawn = first["class_latents"][:, 0, 0, 0]
    assert torch.equal(drawn.floor().long(), first["emotion"])
    assert len(set((drawn % 1).tolist())) == 4
    assert not torch.equal(first["class_latents"], later["class_latents"])


def prior(folder: Path, labels: list[str]) -> str:
    latents = [encode_latent(random(4, 8, 8, seed=number)) for number in range(len(labels))]
    table = pa.table({"image_id": [str(n) for n in range(len(labels))], "emotion": labels, "latent": latents})
    commit_shard(open_store(str(folder)), "prior/part-00000", table, plan_hash="p")
    return str(folder)


def test_class_images_are_read_by_label_and_none_may_lack(tmp_path: Path) -> None:
    found = read_prior(prior(tmp_path / "a", ["awe", "fear", "awe"]), ["fear", "awe"])
    assert [len(part) for part in found] == [1, 2]
    torch.testing.assert_close(found[0][0].float(), random(4, 8, 8, seed=1), atol=2e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="holds no class image of 'anger'"):
        read_prior(prior(tmp_path / "b", ["awe"]), ["awe", "anger"])


def test_a_tuned_painter_has_the_trained_weights(sd_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from uniemo_ray.models.diffusion import load_diffusion

    parts: Any = load_diffusion(str(sd_folder))
    trained = {name: value + 1 for name, value in parts.denoiser.named_parameters()}
    save_file(
        {key: value.detach().clone() for key, value in trained.items()}, tmp_path / "denoiser.safetensors"
    )
    painter = TunedPainter(
        diffusion=DiffusionConfig(model=str(sd_folder)),
        fingerprint="f",
        folder=str(tmp_path),
        has_text_encoder=False,
    )
    made, fingerprint = painter(device="cpu", dtype=None)
    assert fingerprint == "f"
    assert all(torch.equal(p, trained[name]) for name, p in made.diffusion.denoiser.named_parameters())
    save_file({"nonsense": torch.zeros(1)}, tmp_path / "denoiser.safetensors")
    with pytest.raises(ValueError, match=r"does not fit diffusion\.model: \S+ is not in both"):
        painter(device="cpu", dtype=None)
