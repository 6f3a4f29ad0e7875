"""The objectives over several ranks: which images the contrast sees."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.config import LossConfig
from uniemo_ray.models.attributes import AttributeBase
from uniemo_ray.models.encoder import Features
from uniemo_ray.models.uniemo import Temperatures, Understanding
from uniemo_ray.training.objectives import UnderstandingObjective

NAMES = ("sea", "wood", "town")


class Net(nn.Module):
    """Stands for the network: one linear layer gives what it says."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Parameter(torch.randn(4, 5, generator=generator))
        embeddings = torch.randn(2, len(NAMES), 5, generator=generator)
        self.scenes, self.objects = (AttributeBase(NAMES, each) for each in embeddings)

    def forward(self, pixels: Tensor) -> Understanding:
        said = F.normalize(pixels @ self.layer, dim=1)
        features = Features(cls=said, patches=said[:, None], scene=said, object=said)
        return Understanding(features, logits=said, scene_embedding=said, object_embedding=said)

    def temperatures(self) -> Temperatures:
        return Temperatures(scene=0.1, object=0.2)


def batch() -> dict[str, Tensor]:
    return {
        "pixels": torch.randn(6, 4, generator=torch.Generator().manual_seed(1)),
        "emotion": torch.tensor([0, 1, 2, 3, 4, 0]),
        "scene": torch.tensor([0, 1, 2, 1, 2, 0]),
        "object": torch.tensor([0, 2, -1, 2, 0, 1]),
    }


def values(objective: UnderstandingObjective, part: slice) -> SimpleNamespace:
    found = objective({name: tensor[part] for name, tensor in batch().items()})
    objective.zero_grad()
    (found["scene_loss"] + found["object_loss"]).backward()
    assert objective.net.layer.grad is not None
    losses = {name: found[name].detach() for name in ("scene_loss", "object_loss")}
    return SimpleNamespace(gradient=objective.net.layer.grad.clone(), **losses)


def work(rank: int, folder: str, contrast: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    objective = make(contrast)
    got = values(objective, slice(3 * rank, 3 * rank + 3))
    dist.all_reduce(got.gradient)  # engines average over ranks
    got.gradient /= 2
    torch.save(vars(got), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def make(contrast: str) -> UnderstandingObjective:
    losses = LossConfig.model_validate({"contrast": contrast})
    return UnderstandingObjective(Net(), losses)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["global", "worker"])
def test_the_contrast_sees_the_images_it_should(tmp_path: Path, contrast: str) -> None:
    """Two ranks of three images equal one process with six, or the mean of two processes with three."""
    mp.spawn(work, args=(str(tmp_path), contrast), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = make(contrast)
    whole, first, second = (values(alone, part) for part in (slice(0, 6), slice(0, 3), slice(3, 6)))
    for name in ("scene_loss", "object_loss"):
        halves = getattr(first, name), getattr(second, name)
        expected = (getattr(whole, name),) * 2 if contrast == "global" else halves
        for found, wanted in zip(ranks, expected, strict=True):
            torch.testing.assert_close(found[name], wanted)
    gradient = whole.gradient if contrast == "global" else (first.gradient + second.gradient) / 2
    for found in ranks:
        torch.testing.assert_close(found["gradient"], gradient)
    assert not torch.allclose(whole.gradient, (first.gradient + second.gradient) / 2, atol=1e-3)
