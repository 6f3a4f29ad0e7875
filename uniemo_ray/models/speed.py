"""Settings that change time and memory, and numbers by rounding alone."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from uniemo_ray.config import DiffusionConfig, TrainConfig
from uniemo_ray.models.uniemo import UniEmoNet

if TYPE_CHECKING:
    from uniemo_ray.models.diffusion import DiffusionParts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def tune_diffusion(parts: "DiffusionParts", config: DiffusionConfig) -> "DiffusionParts":
    """Apply `frozen_dtype`, `channels_last` and `vae_slicing`, in place."""
    from uniemo_ray.models.vae import tune_vae  # imports diffusers, which stage 1 does without

    if config.frozen_dtype != "fp32":
        for part in vars(parts).values():
            if isinstance(part, nn.Module) and part is not parts.vae:
                store_as(part, DTYPES[config.frozen_dtype])
    if config.channels_last:
        nn.Module.to(parts.denoiser, memory_format=torch.channels_last)
    tune_vae(parts.vae, config)
    return parts


def tune_training(net: UniEmoNet, denoiser: Any, train: TrainConfig) -> None:
    """Apply `gradient_checkpointing` and `compile`, in place; `denoiser` may be None (stage 1)."""
    visual = net.encoder.visual
    if train.gradient_checkpointing:
        visual.set_grad_checkpointing(True)
        if denoiser is not None:
            denoiser.enable_gradient_checkpointing()
    if train.compile:
        compile_parts([*visual.transformer.resblocks, *([] if denoiser is None else [denoiser])])


def store_as(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep and run a module in another floating type; what goes in is converted, what comes out is fp32."""
    nn.Module.to(module, dtype)  # that of diffusers warns of layers to keep, and names none

    def narrow(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        return _cast(args, dtype), _cast(kwargs, dtype)

    def widen(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return _cast(output, torch.float32)

    module.register_forward_pre_hook(narrow, with_kwargs=True)
    module.register_forward_hook(widen)


def compile_parts(modules: Sequence[nn.Module], *, backend: str | Callable[..., Any] = "inductor") -> None:
    """`torch.compile` modules in place: their parameters keep their names.

    Raises:
        ValueError: when the environment would make it do nothing, silently.
    """
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        raise ValueError("compile is set, but TORCHDYNAMO_DISABLE=1 is in the environment: unset one of them")
    for module in modules:
        module.compile(backend=backend)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors anywhere in tuples, lists and dicts (a model's output is one) as `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)(**{name: _cast(item, dtype) for name, item in value.items()})
    return type(value)(_cast(item, dtype) for item in value) if isinstance(value, tuple | list) else value
