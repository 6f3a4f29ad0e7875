"""What training gets of a baseline: groups, seeds, what is kept, and the network as it is used afterwards."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.tiny import pictures, write_clip
from uniemo_ray.baselines.understanding.build import build_baseline, build_network, load_network
from uniemo_ray.baselines.understanding.settings import BaselineSettings, build
from uniemo_ray.config.baselines import TrainedBaseline
from uniemo_ray.settings_file import load_config
from uniemo_ray.training.optimizers import MomentumSgd, adamw
from uniemo_ray.training.stage_settings import StageSettings


def settings_of(
    folder: Path, baseline: TrainedBaseline, *overrides: str, weights: str | None = None
) -> BaselineSettings:
    if not (folder / "clip").exists():
        write_clip(folder / "clip")
    small = ["baselines.coop.context_length=2", f"encoder.clip={folder}/clip"]
    config = load_config(None, [*small, *overrides])
    return BaselineSettings(stage="understanding", config=config, baseline=baseline, weights=weights)


@pytest.mark.parametrize(
    ("baseline", "kept"),
    [
        ("coop", {"vectors"}),
        ("cocoop", {"vectors", *(f"meta_net.{n}.{part}" for n in (0, 2) for part in ("weight", "bias"))}),
        ("fine_tuning", None),
    ],
)
def test_what_trains_is_kept_and_gives_the_same_answers(tmp_path, baseline, kept):
    settings = settings_of(tmp_path, baseline)
    parts = build(settings)
    trained = {id(p) for p in parts.objective.parameters() if p.requires_grad}
    grouped = [id(p) for group in parts.groups for p in group["params"]]
    assert sorted(grouped) == sorted(trained)
    # DeepSpeed cannot send a number without dimensions from worker to worker
    assert all(parameter.ndim > 0 for parameter in parts.objective.parameters())
    module = parts.exports["net"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    state = module.state_dict()
    assert kept is None or set(state) == kept
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "net.safetensors")
    again = load_network(settings_of(tmp_path, baseline, weights=f"{tmp_path}/net.safetensors"))
    pixels = pictures(3)
    expected = parts.objective.eval().network(pixels)
    torch.testing.assert_close(again.network(pixels), expected, rtol=1e-5, atol=1e-5)
    fresh = build_network(settings).network(pixels)
    assert not torch.allclose(fresh, expected, rtol=1e-2, atol=1e-2)
    assert not any(parameter.requires_grad for parameter in again.network.parameters())


def test_a_seed_decides_where_training_starts(tmp_path):
    starts = [build_network(settings_of(tmp_path, "coop", f"seed={seed}")).kept.vectors for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_prompts_train_by_sgd_and_networks_by_adamw_with_a_rate_for_the_head(tmp_path):
    prompts = build_baseline(settings_of(tmp_path, "cocoop"))
    assert prompts.make_optimizer is MomentumSgd
    assert [(group["lr"], group["weight_decay"]) for group in prompts.groups] == [(2e-3, 5e-4)]
    tower = ["baselines.fine_tuning={rate: 1e-5, head_rate: 1e-3, weight_decay: 0.1}"]
    parts = build_baseline(settings_of(tmp_path, "fine_tuning", *tower))
    assert parts.make_optimizer is adamw
    found = {(group["name"], group["lr"], group["weight_decay"]) for group in parts.groups}
    assert found == {
        ("fine_tuning", 1e-5, 0.1),
        ("fine_tuning", 1e-5, 0.0),
        ("head", 1e-3, 0.1),
        ("head", 1e-3, 0.0),
    }


def test_the_engine_reads_a_baselines_own_numbers(tmp_path):
    changed = "baselines.coop={epochs: 7, batch_size: 9, micro_batch: 3, warmup_steps: 1, augment: false}"
    train = settings_of(tmp_path, "coop", changed).train
    assert (train.epochs, train.batch_size, train.micro_batch, train.warmup_steps) == (7, 9, 3, 1)
    assert train.gradient_clip is None
    assert not train.augment
    assert settings_of(tmp_path, "fine_tuning").train.gradient_clip == 1.0


def test_settings_of_something_else_are_refused(tmp_path):
    settings = settings_of(tmp_path, "coop")
    with pytest.raises(ValueError, match="expected the settings of a baseline, got StageSettings"):
        build(StageSettings(stage="understanding", config=settings.config))
    with pytest.raises(ValueError, match="weights is empty"):
        load_network(settings)


@pytest.mark.parametrize("valence", ["false", "true"])
def test_there_is_an_answer_for_every_class(tmp_path, valence):
    settings = settings_of(tmp_path, "coop", f"data.valence={valence}")
    assert build_network(settings).network(pictures(1)).shape == (1, 8 if valence == "false" else 2)
