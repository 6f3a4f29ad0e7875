from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from uniemo_ray.losses import info_nce
from uniemo_ray.training.gather import gather_batch


def contrast(
    layer: torch.Tensor, x: torch.Tensor, names: torch.Tensor, attribute: torch.Tensor
) -> torch.Tensor:
    queries = torch.nn.functional.normalize(gather_batch(x @ layer), dim=1)
    return info_nce(queries, names, gather_batch(attribute), temperature=0.1)


def problem() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(6, 5, generator=generator), dim=1)
    attribute = torch.tensor([0, 1, -1, 2, 0, 3])
    return torch.randn(4, 5, generator=generator), torch.randn(6, 4, generator=generator), names, attribute


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    layer, x, names, attribute = problem()
    layer.requires_grad_()
    part = slice(3 * rank, 3 * rank + 3)
    loss = contrast(layer, x[part], names, attribute[part])
    loss.backward()
    gradient = layer.grad.clone()
    dist.all_reduce(gradient)  # engines average over ranks
    torch.save({"loss": loss.detach(), "gradient": gradient / 2}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_one_rank_is_untouched() -> None:
    x = torch.randn(3, 2)
    assert gather_batch(x) is x


@pytest.mark.slow
def test_two_ranks_give_the_gradient_of_the_global_batch(tmp_path: Path) -> None:
    layer, x, names, attribute = problem()
    layer.requires_grad_()
    loss = contrast(layer, x, names, attribute)
    loss.backward()
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(result["loss"], loss.detach())
        torch.testing.assert_close(result["gradient"], layer.grad)
