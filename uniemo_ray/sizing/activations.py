"""What a training step keeps for its backward pass, by torch's own account on tensors without data.

The forward pass runs on fake tensors: every operation computes shapes and types and nothing else, so
autograd saves what it would really save. Temporary buffers of single kernels are not in it: an estimate.
"""

# B images of one GPU, S image side, L prompt tokens, T text width, h latent side

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from uniemo_ray.config import Config, TrainConfig
from uniemo_ray.models.conditioning import Prompts, encode_prompts
from uniemo_ray.models.speed import DTYPES, store_as
from uniemo_ray.sizing.architectures import Architecture
from uniemo_ray.sizing.blueprint import Blueprint, Stage, choose_trained
from uniemo_ray.training.deepspeed_module import zero3_linear

CHECKPOINTED = ("ResidualAttentionBlock", "ResnetBlock2D", "BasicTransformerBlock")
"""Modules that gradient checkpointing computes again."""


@dataclass
class Kept:
    """Bytes that autograd holds after a forward pass."""

    bytes: int = 0
    inside: tuple[int, ...] = ()
    """Bytes held within each checkpointed module; `bytes` includes them."""
    entering: int = 0
    """Inputs of the checkpointed modules."""

    def total(self, *, is_checkpointed: bool) -> int:
        """Bytes with or without gradient checkpointing: then one module's own are there at a time."""
        if not is_checkpointed:
            return self.bytes
        return self.bytes - sum(self.inside) + self.entering + max(self.inside, default=0)


def estimate_activations(
    blueprint: Blueprint,
    architecture: Architecture,
    config: Config,
    *,
    stage: Stage,
    batch: int,
    with_zero3: bool = False,
) -> int:
    """Bytes kept by a step of a stage on `batch` images of one GPU, under ZeRO 3 or another.

    Works on a copy: a module on the meta device takes none of the machine's memory, and neither does this.
    """
    train = config.stage1 if stage == 1 else config.stage2
    blueprint = deepcopy(blueprint)
    choose_trained(blueprint.net, config, stage)
    if config.diffusion.frozen_dtype != "fp32":
        for part in (blueprint.denoiser, *blueprint.text_encoders):
            store_as(part, DTYPES[config.diffusion.frozen_dtype])
    with FakeTensorMode(allow_non_fake_inputs=True), _linear(of_zero3=with_zero3):
        kept = _measure(blueprint.net, lambda net: _understand(net, batch), train)
        parts = [kept]
        if stage == 2:
            parts += _diffuse(blueprint, architecture, config, batch)
    return sum(part.total(is_checkpointed=train.gradient_checkpointing) for part in parts)


@contextmanager
def _linear(*, of_zero3: bool) -> Iterator[None]:
    """Torch's own `linear`, or the one with which DeepSpeed replaces it in a process that has used ZeRO 3.

    That keeps inputs and weights as they come, where torch keeps the copies that autocast multiplies.
    """
    before = functional.linear
    functional.linear = zero3_linear() if of_zero3 else torch._C._nn.linear
    try:
        yield
    finally:
        functional.linear = before


def _understand(net: Any, batch: int) -> Any:
    side = int(net.encoder.visual.image_size[0])
    said = net.understand(torch.empty(batch, 3, side, side))
    return said, net.condition(said.features, torch.zeros(batch, dtype=torch.long))


def _diffuse(blueprint: Blueprint, architecture: Architecture, config: Config, batch: int) -> list[Kept]:
    train, size = config.stage2, config.diffusion.size_px // architecture.pixels_per_latent
    channels = int(architecture.denoiser["in_channels"])
    kept, states = [], []
    for encoder, values in zip(blueprint.text_encoders, architecture.text_encoders, strict=True):
        length = int(values["max_position_embeddings"])
        prompts = Prompts(torch.zeros(batch, length, dtype=torch.long), torch.ones(batch, length) > 0)
        condition = torch.empty(batch, int(values["hidden_size"]), requires_grad=True)
        kept.append(_measure(encoder, lambda e, p=prompts, c=condition: encode_prompts(e, p, c), train))
        states.append(torch.empty(batch, length, int(values["hidden_size"])))
    context = torch.cat(states, dim=-1).requires_grad_()
    latents = torch.empty(batch, channels, size, size)
    extra = _added_conditions(architecture, batch)

    def denoise(denoiser: Any) -> Any:
        steps = torch.zeros(batch, dtype=torch.long)
        return denoiser(latents, steps, encoder_hidden_states=context, **extra)

    return [*kept, _measure(blueprint.denoiser, denoise, train)]


def _added_conditions(architecture: Architecture, batch: int) -> dict[str, Any]:
    """The pooled text embedding and the size numbers that SDXL's denoiser takes beside the text."""
    if architecture.denoiser.get("addition_embed_type") != "text_time":
        return {}
    width = int(architecture.text_encoders[-1]["projection_dim"])
    return {
        "added_cond_kwargs": {
            "text_embeds": torch.empty(batch, width, requires_grad=True),
            "time_ids": torch.empty(batch, 6),
        }
    }


def _measure(module: nn.Module, run: Any, train: TrainConfig) -> Kept:
    fake = module.to_empty(device="cpu")  # inside the fake mode: no memory is taken
    precision = torch.autocast("cpu", dtype=torch.bfloat16) if train.precision != "fp32" else nullcontext()
    with _metered(fake) as meter, precision:
        run(fake)
    return meter.kept()


class _Meter:
    """Counts each storage that autograd saves once; weights are not activations."""

    def __init__(self, module: nn.Module) -> None:
        self._seen = {_key(tensor) for tensor in (*module.parameters(), *module.buffers())}
        self._alive: list[Tensor] = []  # a freed storage's address could come back as another tensor
        self._bytes = self._entering = 0
        self._inside: list[int] = []
        self._depth = 0

    def pack(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._seen:
            self._seen.add(key)
            self._alive.append(tensor)
            size = tensor.untyped_storage().nbytes()
            self._bytes += size
            if self._depth:
                self._inside[-1] += size
        return tensor

    def enter(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._depth:
            self._inside.append(0)
            tensors = [value for value in inputs if isinstance(value, Tensor)]
            self._entering += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self._depth += 1

    def leave(self, *_: Any) -> None:
        self._depth -= 1

    def kept(self) -> Kept:
        return Kept(self._bytes, tuple(self._inside), self._entering)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _metered(module: nn.Module) -> Iterator[_Meter]:
    meter = _Meter(module)
    handles = []
    for part in module.modules():
        if type(part).__name__ in CHECKPOINTED:
            handles += [part.register_forward_pre_hook(meter.enter), part.register_forward_hook(meter.leave)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda tensor: tensor):
            yield meter
    finally:
        for handle in handles:
            handle.remove()
