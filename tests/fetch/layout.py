"""Tiny models as repositories of the stand-in hub."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.fetch.hub_server import HubServer
from uniemo_ray.fetch.sources import L14, SD15

CLIP = replace(L14, sha256=())
"""The repository of L/14 for a small stand-in, which cannot have the pinned hash."""


def offer_models(server: HubServer, models: Path) -> None:
    """SD's text encoder only as a pickle and with a safety checker, as in old repositories."""
    diffusion = files_below(models / "diffusion")
    weights = load_file(models / "diffusion" / "text_encoder" / "model.safetensors")
    torch.save(weights, models / "pickled.bin")
    del diffusion["text_encoder/model.safetensors"]
    diffusion["text_encoder/pytorch_model.bin"] = (models / "pickled.bin").read_bytes()
    diffusion["unet/diffusion_pytorch_model.fp16.safetensors"] = b"half"
    index = json.loads(diffusion["model_index.json"])
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    diffusion["model_index.json"] = json.dumps(index).encode()
    server.add(SD15.repository, SD15.revision, diffusion)
    server.add(CLIP.repository, CLIP.revision, files_below(models / "clip"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
