"""Nothing makes the CPU wait for the device between the start of a step and the end of its backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.accumulation import ROWS, make, stage_settings
from uniemo_ray.losses import info_nce
from uniemo_ray.training.engine import Engine

WAITS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::equal",
    "aten::masked_select",
)
"""What needs a value of the device: `item()`, `tolist()`, `if tensor`, `nonzero()`, a mask as an index."""


class _Waits(TorchDispatchMode):
    """Notes every operation for which the CPU would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in WAITS:
            self.seen.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits_in_passes(engine: Engine) -> Iterator[list[str]]:
    """What waits from the first forward pass of a step to the end of its last backward pass."""
    mode, forward, backward = _Waits(), engine._forward, engine._engine.backward

    def noted_forward(*values: Any, **options: Any) -> Any:
        with mode:
            return forward(*values, **options)

    def noted_backward(loss: Tensor) -> Any:
        with mode:
            return backward(loss)

    engine._forward = noted_forward  # type: ignore[method-assign]
    engine._engine.backward = noted_backward
    yield mode.seen
    engine._forward = forward  # type: ignore[method-assign]
    engine._engine.backward = backward


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "losses", "zero_stage", "micro_batch"),
    [
        ("understanding", {}, 3, None),
        ("understanding", {"missing_attribute": "negative", "is_symmetric": True}, 1, None),
        ("joint", {}, 0, 2),
        ("joint", {}, 1, None),
        ("joint", {"joint_attributes": "heads"}, 2, 2),
    ],
)
def test_no_pass_waits_for_the_device(
    folders: dict[str, Path], stage: str, losses: dict[str, Any], micro_batch: int | None, zero_stage: int
) -> None:
    values = stage_settings(folders, stage, losses)
    engine, _, batch = make(values, zero_stage=zero_stage, micro_batch=micro_batch)
    for _ in range(3):  # ZeRO 3 compares once on all ranks which parameters it will fetch in which order
        engine.step(batch, images=ROWS)
    with waits_in_passes(engine) as seen:
        engine.step(batch, images=ROWS)
    assert seen == []


@pytest.mark.slow
def test_the_share_of_a_batch_is_known_without_asking(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _, batch = make(stage_settings(folders, "understanding", {}), zero_stage=1)
    expected = engine.step(batch).metrics
    monkeypatch.setattr("uniemo_ray.training.engine.gather_rows", None)
    other, _, _ = make(stage_settings(folders, "understanding", {}), zero_stage=1)
    assert other.step(batch, images=ROWS).metrics == expected
    with pytest.raises(ValueError, match="rank 0 has 15 images of a batch in which its share is 16"):
        other.step(batch, images=ROWS + 1)


def test_the_watch_sees_a_wait() -> None:
    with _Waits() as watch:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
        torch.ones(3)[torch.tensor([True, False, True])]
    assert set(watch.seen) >= {"aten::_local_scalar_dense", "aten::nonzero"}


@pytest.mark.parametrize("missing", ["left_out", "negative"])
@pytest.mark.parametrize("attribute", [[-1, -1, -1], [2, -1, -1], [-1]])
def test_rows_without_attributes_have_a_gradient_of_zero(attribute: list[int], missing: Any) -> None:
    queries = torch.randn(len(attribute), 4, requires_grad=True)
    loss = info_nce(
        queries,
        torch.randn(len(attribute), 4),
        torch.tensor(attribute),
        temperature=0.1,
        missing=missing,
        is_symmetric=True,
    )
    (gradient,) = torch.autograd.grad(loss, queries)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if missing == "left_out":
        assert loss == 0
        assert not gradient.any()
