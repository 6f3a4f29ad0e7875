"""SGD with momentum: torch's own update under every ZeRO stage, and over a checkpoint."""

from pathlib import Path

import pytest
import torch

from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.optimizers import MomentumSgd
from uniemo_ray.training.schedule import rate_factor

RATE, DECAY = 1e-2, 5e-4


def groups(objective: TinyObjective) -> list[dict[str, object]]:
    return [{**group, "weight_decay": DECAY} for group in objective.groups(lr=RATE)]


def make(stage: int) -> tuple[Engine, TinyObjective]:
    objective = TinyObjective()
    config = tiny_config(zero_stage=stage)
    engine = Engine(
        objective, groups(objective), train=config, total_steps=20, seed=0, make_optimizer=MomentumSgd
    )
    return engine, objective


def test_the_update_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    optimizer = MomentumSgd([{"params": [own], "lr": 0.1, "weight_decay": 0.01}])
    reference = torch.optim.SGD([other], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        own.grad = torch.randn(3, 2, generator=generator)
        other.grad = own.grad.clone()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(own, other, rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_all_stages_take_torchs_steps_and_go_on_from_a_checkpoint(stage: int, tmp_path: Path) -> None:
    engine, objective = make(stage)
    reference = TinyObjective()
    optimizer = torch.optim.SGD(
        [p for p in reference.parameters() if p.requires_grad], lr=RATE, momentum=0.9, weight_decay=DECAY
    )
    for i in range(6):
        if i == 3:
            engine.save(tmp_path)
            engine, objective = make(stage)
            engine.load(tmp_path)
        engine.step(tiny_batch(i))
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_factor(i, total=20, warmup=3, kind="cosine")
        torch.manual_seed(hash_seed(0, "step", i, 0))
        optimizer.zero_grad()
        reference(tiny_batch(i))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    for name, value in engine.state_dict(objective.net).items():
        torch.testing.assert_close(value, reference.net.state_dict()[name], rtol=1e-4, atol=1e-5)
