"""Estimated activations are those that the real modules keep."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.models.tiny import write_clip, write_pipeline
from tools.tiny.words import CONTEXT_LENGTH
from uniemo_ray.config import PLACEHOLDER, Config
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.models.speed import tune_diffusion
from uniemo_ray.models.uniemo import set_trainable
from uniemo_ray.sizing.activations import Kept, _diffuse, estimate_activations
from uniemo_ray.sizing.architectures import find_architecture
from uniemo_ray.sizing.blueprint import build_blueprint
from uniemo_ray.training.deepspeed_module import zero3_linear


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("models")
    write_clip(folder / "clip")
    write_pipeline(folder / "diffusion")
    return Config.model_validate(
        {
            "encoder": {"clip": str(folder / "clip"), "query_length": 3},
            "diffusion": {"model": str(folder / "diffusion"), "size_px": 16},
        }
    )


def estimate(config: Config, *, stage: int, batch: int, with_zero3: bool = False, **train: object) -> int:
    changed = config.model_copy(
        update={f"stage{stage}": getattr(config, f"stage{stage}").model_copy(update=train)}
    )
    shape = find_architecture(config.diffusion.model)
    blueprint = build_blueprint(changed, shape, names=(3, 4))
    return estimate_activations(blueprint, shape, changed, stage=stage, batch=batch, with_zero3=with_zero3)


def saved_by(run, weights) -> int:
    """Bytes that real autograd saves, weights apart."""
    known = {tensor.untyped_storage().data_ptr() for tensor in weights}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor):
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = run()
    assert alive is not None
    return sum(t.untyped_storage().nbytes() for key, t in found.items() if key not in known)


@pytest.mark.parametrize("with_zero3", [False, True])
def test_stage_1_keeps_what_the_real_network_keeps(config, with_zero3, monkeypatch) -> None:
    """In a process that has used ZeRO 3, DeepSpeed's linear layers stand in the place of torch's."""
    if with_zero3:
        monkeypatch.setattr(torch.nn.functional, "linear", zero3_linear())
    net = build_net(
        config,
        clip=load_clip(config.encoder.clip),
        scene_names=["a", "b", "c"],
        object_names=["d", "e", "f", "g"],
        text_width=16,
    )
    set_trainable(net, stage=1, tower="train")
    net.train()
    weights = [*net.parameters(), *net.buffers()]

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            said = net.understand(torch.randn(2, 3, 32, 32))
            return said, net.condition(said.features, torch.zeros(2, dtype=torch.long))

    real = saved_by(run, weights)
    # the classifier's dropout is off in the estimate
    kept = {
        zero3: estimate(config, stage=1, batch=2, precision="bf16", with_zero3=zero3)
        for zero3 in (False, True)
    }
    assert kept[with_zero3] == pytest.approx(real, rel=0.1)
    assert kept[True] != pytest.approx(kept[False], rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_stage_2_adds_text_encoder_and_denoiser(config, dtype) -> None:
    config = config.model_copy(
        update={"diffusion": config.diffusion.model_copy(update={"frozen_dtype": dtype})}
    )
    parts = tune_diffusion(load_diffusion(config.diffusion.model), config.diffusion)
    condition = torch.randn(2, 16, requires_grad=True)
    weights = [p for m in (parts.denoiser, parts.text_encoder) for p in (*m.parameters(), *m.buffers())]
    states = []
    text = saved_by(lambda: states.append(parts.text_states([PLACEHOLDER] * 2, condition)) or states, weights)
    context = states[0].hidden.detach().requires_grad_()
    times = torch.zeros(2, dtype=torch.long)
    denoised = saved_by(
        lambda: parts.denoiser(torch.randn(2, 4, 8, 8), times, encoder_hidden_states=context).sample, weights
    )
    own = estimate(config, stage=2, batch=2) - estimate(config, stage=1, batch=2)
    # in stage 2 the fusion trains as well, which keeps a little more
    assert own == pytest.approx(text + denoised, rel=0.1)
    assert denoised > 3 * text


@pytest.mark.slow
def test_checkpointing_and_precision_keep_less(config) -> None:
    plain = estimate(config, stage=2, batch=4)
    assert plain > 3 * estimate(config, stage=2, batch=1)
    assert estimate(config, stage=2, batch=4, gradient_checkpointing=True) < 0.8 * plain
    assert estimate(config, stage=2, batch=4, precision="bf16") < 0.8 * plain


def test_checkpointed_modules_are_there_one_at_a_time() -> None:
    kept = Kept(bytes=100, inside=(30, 50), entering=8)
    assert kept.total(is_checkpointed=False) == 100
    assert kept.total(is_checkpointed=True) == 100 - 80 + 8 + 50


def test_checkpointing_keeps_outside_of_blocks_what_the_real_denoiser_keeps(config) -> None:
    shape = find_architecture(config.diffusion.model)
    train = config.stage2.model_copy(update={"gradient_checkpointing": True})
    changed = config.model_copy(update={"stage2": train})
    blueprint = build_blueprint(changed, shape, names=(3, 4))
    with FakeTensorMode(allow_non_fake_inputs=True):
        *_, kept = _diffuse(blueprint, shape, changed, 2)
    denoiser = load_diffusion(config.diffusion.model).denoiser.train()
    denoiser.enable_gradient_checkpointing()
    context, times = torch.randn(2, CONTEXT_LENGTH, 16, requires_grad=True), torch.zeros(2, dtype=torch.long)
    real = saved_by(
        lambda: denoiser(torch.randn(2, 4, 8, 8), times, encoder_hidden_states=context).sample,
        [*denoiser.parameters(), *denoiser.buffers()],
    )
    # torch keeps what enters a block, to compute the block again
    assert kept.bytes - sum(kept.inside) + kept.entering == pytest.approx(real, rel=0.1)
    assert real < 0.3 * kept.bytes
