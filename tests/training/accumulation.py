"""Real objectives on small models, trained by ranks in chunks, and a reference that knows no chunks."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.training.test_stage import alpha, as_settings, rows, settings
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.chunks import Whole
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.joint_objective import JointObjective
from uniemo_ray.training.objectives import KINDS, UnderstandingObjective
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.shares import rank_chunks
from uniemo_ray.training.stage import build_stage

ROWS, MICRO_BATCH, SEED = 15, 2, 5  # 8 chunks, the last of one row: three ranks have 6, 6 and 3 rows
Outcome = tuple[list[dict[str, float]], dict[str, Tensor]]


def stage_settings(folders: dict[str, Path], stage: str, losses: Mapping[str, Any]) -> dict[str, Any]:
    sections = {"losses": {"learn_temperature": True, **losses}}
    return settings(
        folders, stage, sections=sections, **({"coefficients": alpha()} if stage == "joint" else {})
    )


def build(values: dict[str, Any]) -> tuple[StageParts, dict[str, Tensor]]:
    """A stage and its batch, in which some images lack a scene or an object."""
    torch.manual_seed(0)
    parts = build_stage(as_settings(values))
    raw = rows(ROWS)
    raw["scene"][[1, 6, 7]] = None
    raw["objects"][4] = np.array([], dtype=object)
    return parts, parts.collate(raw, epoch=0, is_training=False).tensors


def make(
    values: dict[str, Any], *, zero_stage: int, micro_batch: int | None = MICRO_BATCH, **options: Any
) -> tuple[Engine, StageParts, dict[str, Tensor]]:
    """An engine and this rank's share of the batch."""
    parts, batch = build(values)
    update = {
        "zero_stage": zero_stage,
        "micro_batch": micro_batch,
        "batch_size": ROWS,
        "warmup_steps": 0,
        **options,
    }
    train = as_settings(values).train.model_copy(update=update)
    engine = Engine(parts.objective, parts.groups, train=train, total_steps=20, seed=SEED)
    own = rank_chunks(ROWS, rank=engine.rank, world_size=engine.world_size, micro_batch=micro_batch)
    return engine, parts, {name: tensor[own[0].start : own[-1].stop] for name, tensor in batch.items()}


class AtOnce(nn.Module):
    """All chunks in one graph with one backward pass, each with its own random numbers."""

    def __init__(self, objective: UnderstandingObjective | JointObjective, workers: int = 1) -> None:
        super().__init__()
        self.objective, self.step, self.workers = objective, 0, workers

    @property
    def first(self) -> UnderstandingObjective:
        return self.objective.understanding if isinstance(self.objective, JointObjective) else self.objective

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shares = [
            rank_chunks(ROWS, rank=rank, world_size=self.workers, micro_batch=MICRO_BATCH)
            for rank in range(self.workers)
        ]
        chunks = [chunk for share in shares for chunk in share]
        config = self.first._losses
        is_global = config.contrast == "global"
        groups = [range(ROWS)] if is_global else [range(s[0].start, s[-1].stop) for s in shares]
        said = [self._run(i, chunk, batch, embeds=True) for i, chunk in enumerate(chunks)]
        labels = self.first.label_counts(batch)
        nothing = SimpleNamespace(surrogate=lambda query, temperature: query.sum() * 0)
        total: dict[str, Tensor] = {}
        for i, chunk in enumerate(chunks):
            found = self.first.label_counts({name: t[chunk.start : chunk.stop] for name, t in batch.items()})
            factors = {kind: (found[kind] / len(chunk)) / (labels[kind] / ROWS) for kind in found}
            whole = Whole([ROWS], factors, dict.fromkeys(KINDS, nothing))  # type: ignore[arg-type]
            for name, value in self._run(i, chunk, batch, whole).items():
                total[name] = total.get(name, torch.zeros(())) + value * len(chunk) / ROWS
        for kind in said[0].queries:
            queries = torch.cat([each.queries[kind] for each in said])
            value = torch.zeros(())
            for group in groups:
                part = slice(group.start, group.stop)
                contrast = self.first.contrast(
                    kind, queries[part], batch[kind][part], said[0].temperatures[kind], None
                )
                value = value + contrast * len(group) / ROWS
            weight = config.scene_weight if kind == "scene" else config.object_weight
            total[f"{kind}_loss"] = total[f"{kind}_loss"] + value
            if "understanding_loss" in total:
                total["understanding_loss"] = total["understanding_loss"] + weight * value
                weight *= config.understanding_weight
            total["loss"] = total["loss"] + weight * value
        self.step += 1
        return total

    def _run(
        self, index: int, chunk: range, batch: Mapping[str, Tensor], *values: Any, **options: Any
    ) -> Any:
        torch.manual_seed(hash_seed(SEED, "step", self.step, index))
        part = {name: tensor[chunk.start : chunk.stop] for name, tensor in batch.items()}
        return self.objective(part, *values, **options)


def reference(values: dict[str, Any], *, steps: int, workers: int = 1) -> Outcome:
    """Training without chunks, in one process."""
    parts, batch = build(values)
    assert isinstance(parts.objective, UnderstandingObjective | JointObjective)
    objective = AtOnce(parts.objective, workers)
    train = as_settings(values).train.model_copy(update={"zero_stage": 0, "warmup_steps": 0})
    engine = Engine(objective, parts.groups, train=train, total_steps=20, seed=SEED)
    metrics = [engine.step(batch).metrics for _ in range(steps)]
    return metrics, engine.state_dict(parts.objective)


def train_in_chunks(rank: int, values: dict[str, Any], zero_stages: list[int], steps: int, out: Path) -> None:
    """Training in chunks by all ranks under each ZeRO stage; rank 0 writes what came out."""
    found = {}
    for zero_stage in zero_stages:
        engine, parts, batch = make(values, zero_stage=zero_stage)
        metrics = [engine.step(batch).metrics for _ in range(steps)]
        evaluated = engine.evaluate(batch)
        found[zero_stage] = metrics, engine.state_dict(parts.objective), evaluated
    if rank == 0:
        torch.save(found, out)


def take_leg(
    rank: int, values: dict[str, Any], zero_stages: list[int], leg: int, steps: int, folder: Path
) -> None:
    """Some steps from the checkpoint of the leg before, and a checkpoint."""
    for zero_stage in zero_stages:
        engine, parts, batch = make(values, zero_stage=zero_stage)
        before, after = (folder / f"{zero_stage}-{number}" for number in (leg - 1, leg))
        if leg:
            engine.load(before)
        metrics = [engine.step(batch).metrics for _ in range(steps)]
        after.mkdir(exist_ok=True)
        engine.save(after)
        weights = engine.state_dict(parts.objective)
        if rank == 0:
            torch.save((metrics, weights), after / "found.pt")
