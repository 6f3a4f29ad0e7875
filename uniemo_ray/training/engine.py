"""The training engine: DeepSpeed behind a small surface."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uniemo_ray.config import TrainConfig
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.buckets import plan_buckets
from uniemo_ray.training.checkpoint import CheckpointReader
from uniemo_ray.training.chunks import Chunk, Contrastive, cache_contrasts, split_share
from uniemo_ray.training.deepspeed_module import ensure_process_group, load_deepspeed
from uniemo_ray.training.deepspeed_settings import deepspeed_config, reduce_in_bf16, resolve_precision
from uniemo_ray.training.engine_state import load_engine_state, save_engine_state, trained_parameters
from uniemo_ray.training.gather import gather_rows
from uniemo_ray.training.half_precision import Fp16Autocast, LossScale
from uniemo_ray.training.held_state import held_state
from uniemo_ray.training.optimizers import MakeOptimizer, adamw
from uniemo_ray.training.schedule import rate_factor
from uniemo_ray.training.shares import share_rows
from uniemo_ray.training.step_values import (
    NonFiniteLossError,
    TrainedStep,
    WeightedSums,
    check_losses,
    is_finite_norm,
)
from uniemo_ray.training.weight_average import WeightAverage


class Engine:
    """An objective, its optimizer and DeepSpeed's ZeRO partitions, stepped one global batch at a time.

    All methods but the properties are collective: every rank calls them in the same order.

    Args:
        objective: `forward(batch)` returns a dict of scalar tensors, the same keys each time, among them
            `loss`.
        groups: Parameter groups with `params`, `name`, `lr` (peak) and `weight_decay`. Frozen
            parameters and empty groups are left out, so they have no optimizer state.
        train: The stage's settings.
        total_steps: Length of the learning rate schedule.
        make_optimizer: AdamW, unless something else is asked for.
        seed: Base of the random streams: chunk `c` of the global batch of step `s` draws from its own. So a
            resumed run draws what a straight run draws, and with `train.micro_batch` so does any number of
            ranks. Without it the chunks are the ranks' shares.
    """

    def __init__(
        self,
        objective: nn.Module,
        groups: list[dict[str, Any]],
        *,
        train: TrainConfig,
        total_steps: int,
        seed: int,
        make_optimizer: MakeOptimizer = adamw,
    ) -> None:
        ensure_process_group()
        deepspeed = load_deepspeed()
        deepspeed.init_distributed(verbose=False)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        device = torch.device(deepspeed.get_accelerator().current_device_name())
        precision = resolve_precision(train, device)
        self._train, self._total_steps, self._seed = train, total_steps, seed
        optimizer = make_optimizer(_trainable(groups))
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._deepspeed, self._objective = deepspeed, objective
        self._scale = LossScale() if precision == "fp16" else None
        trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        if precision == "bf16" and train.reduce_dtype == "bf16" and train.zero_stage < 3:
            reduce_in_bf16(optimizer)
        buckets = plan_buckets(trained, zero_stage=train.zero_stage, has_gpu=device.type != "cpu")
        self._engine = deepspeed.initialize(
            model=Fp16Autocast(objective, device) if self._scale else objective,
            optimizer=optimizer,
            config=deepspeed_config(train, self.world_size, precision=precision, buckets=buckets),
        )[0]

        self._held = held_state(self._engine.optimizer, train.zero_stage)
        self._average = (
            WeightAverage(trained_parameters(objective), self._held, train.ema_decay)
            if train.ema_decay
            else None
        )

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        return torch.device(self._engine.device)

    @property
    def steps(self) -> int:
        """Optimizer steps done, over all attempts."""
        return int(self._engine.global_steps)

    def step(
        self, batch: Mapping[str, Tensor], *, images: int | None = None, is_due: bool = False
    ) -> TrainedStep:
        """Forward, backward, clip and update on one global batch.

        Args:
            batch: This rank's share, tensors with the batch first. Shares may differ in size; with
                `train.micro_batch` all but the last rank's are whole chunks.
            images: Rows of the global batch, if ranks share it as `rank_chunks` deals it; None lets the ranks
                ask one another.
            is_due: Whether this rank wants a checkpoint after the step.

        Raises:
            NonFiniteLossError: on all ranks, before any weight has changed, if a loss of any rank is not
                finite; or after it (ZeRO 1 to 3) if the gradient norm is not. The engine is of no use then.
        """
        step = self.steps
        factor = rate_factor(
            step,
            total=self._total_steps,
            warmup=self._train.warmup_steps,
            kind=self._train.schedule,
            half_cycle=self._train.half_cycle_steps,
        )
        for group, peak in zip(self._engine.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        self._engine.train()
        rows = self._rows(batch, images, self._train.micro_batch)
        metrics, due, norm = self._attempt(batch, step, rows, flag=is_due)
        while self._scale and not is_finite_norm(norm) and self._scale.halve(step):
            self._engine.global_steps = step  # the same step again: no image is skipped
            metrics, due, norm = self._attempt(batch, step, rows, flag=is_due)
        if not is_finite_norm(norm):
            raise NonFiniteLossError(f"gradient is not finite at step {step}: lower the learning rates")
        if self._scale:
            self._scale.count_step()
        if self._average:
            self._average.update(step + 1)
        return TrainedStep(metrics | {"gradient_norm": norm, "lr_factor": factor}, due)

    def evaluate(self, batch: Mapping[str, Tensor], *, images: int | None = None) -> dict[str, float]:
        """The objective's values on a batch in evaluation mode, as means over the rows of all ranks.

        Noise and times of the diffusion loss are the same at every call, so that epochs can be compared.

        Args:
            batch: This rank's share.
            images: Rows of the global batch, if ranks share it equally; None lets them ask one another.
        """
        self._engine.eval()
        totals = WeightedSums()
        with torch.no_grad():
            for chunk in self._chunks(batch, self._rows(batch, images, None), "evaluate"):
                totals.add(self._forward(batch, chunk, "evaluate"), weight=chunk.weight)
        return totals.over_ranks(flag=False)[0]

    def save(self, folder: Path) -> None:
        """Write this rank's part of weights and moments into `folder` (frozen parameters are not in it).

        Any number of ranks under any ZeRO stage can load it.
        """
        save_engine_state(
            folder,
            self._objective,
            self._held,
            rank=self.rank,
            world_size=self.world_size,
            steps=self.steps,
            loss_scale=self._scale.state() if self._scale else {},
            average=self._average,
        )

    def load(self, folder: Path) -> None:
        """Take up weights, optimizer state and step from a folder that holds the files of all ranks.

        Raises:
            ValueError: it holds no checkpoint, an old one, or one of another model.
        """
        reader = CheckpointReader(folder)
        load_engine_state(reader, self._objective, self._held, self._average)
        self._engine.global_steps = reader.index.steps
        if self._scale and reader.index.loss_scale:
            self._scale.restore(reader.index.loss_scale)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """While active, the averaged weights stand in the place of the trained ones; collective.

        It does nothing where the stage keeps no average.
        """
        if self._average:
            self._average.swap()
        yield
        if self._average:  # not after an error, which other ranks may not have: they would wait
            self._average.swap()

    def state_dict(self, module: nn.Module, *, is_trained_only: bool = False) -> dict[str, Tensor]:
        """Full fp32 weights and buffers of `module` (part of the objective), on the CPU.

        ZeRO-3 partitions are gathered one parameter at a time, so memory grows by one parameter on ranks
        other than 0.

        Args:
            module: Registered in the objective.
            is_trained_only: Leave out buffers and frozen parameters.

        Returns:
            Name to tensor on rank 0, an empty dict on the others.
        """
        full: dict[str, Tensor] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if is_trained_only and not tensor.requires_grad:
                continue
            is_partitioned = self._train.zero_stage == 3 and isinstance(tensor, nn.Parameter)
            gathered = [tensor] if is_partitioned else []
            with self._deepspeed.zero.GatheredParameters(gathered, enabled=bool(gathered)):
                if self.rank == 0:
                    full[name] = tensor.detach().to("cpu", copy=True).contiguous()
        return full

    def _rows(self, batch: Mapping[str, Tensor], images: int | None, micro_batch: int | None) -> list[int]:
        """Rows of each rank's share."""
        if images is None:
            return gather_rows(len(next(iter(batch.values()))), self.device)
        return share_rows(images, world_size=self.world_size, micro_batch=micro_batch)

    def _chunks(self, batch: Mapping[str, Tensor], rows: Sequence[int], *stream: object) -> list[Chunk]:
        """What passes the network one after another; contrasts of several chunks are computed first."""
        chunks = split_share(
            batch,
            self._objective,
            rank=self.rank,
            micro_batch=self._train.micro_batch,
            rows=rows,
            device=self.device,
        )
        if len(chunks) == 1 or not isinstance(self._objective, Contrastive):
            return chunks
        return cache_contrasts(
            chunks, self._objective, batch, lambda chunk: self._forward(batch, chunk, *stream, embeds=True)
        )

    def _forward(
        self, batch: Mapping[str, Tensor], chunk: Chunk, *stream: object, embeds: bool = False
    ) -> Any:
        """What the objective returns of a chunk, which draws from its own random stream."""
        torch.manual_seed(hash_seed(self._seed, *stream, chunk.index))
        rows = {name: part.to(self.device, non_blocking=True) for name, part in chunk.of(batch).items()}
        if not isinstance(self._objective, Contrastive):
            return self._engine(rows)
        return self._engine(rows, chunk.whole, embeds=embeds)

    def _attempt(
        self, batch: Mapping[str, Tensor], step: int, rows: Sequence[int], *, flag: bool
    ) -> tuple[dict[str, float], bool, float]:
        """Losses, whether a checkpoint is due, and the gradient norm; the weights change if it is finite."""
        chunks, totals = self._chunks(batch, rows, "step", step), WeightedSums()
        for number, chunk in enumerate(chunks, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(chunks))
            losses = self._forward(batch, chunk, "step", step)
            totals.add(losses, weight=chunk.weight)
            if self._scale:
                self._engine.optimizer.override_loss_scale(self._scale.value)
            self._engine.backward(losses["loss"] * chunk.weight)
        # The CPU waits here alone: both passes are on their way to the device, and no weight has changed.
        metrics, due = totals.over_ranks(flag=flag)
        check_losses(metrics, step=step)
        return metrics, due, self._update()

    def _update(self) -> float:
        """Clip and update; the gradient norm before clipping, from DeepSpeed (ZeRO 1 to 3) or measured."""
        if self._train.zero_stage == 0:
            gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(gradients))
            if is_finite_norm(norm):
                self._engine.step()
            return norm
        self._engine.step()
        return float(self._engine.get_global_grad_norm())


def _trainable(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for group in groups:
        params = [p for p in group["params"] if p.requires_grad]
        if params:
            kept.append({**group, "params": params})
    if not kept:
        raise ValueError("nothing to train: every parameter is frozen; check encoder.tower and fusion")
    return kept
