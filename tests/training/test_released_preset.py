"""What `*_released` presets train, how fast, and by which losses, against a table of the released code."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.training.test_stage import alpha, as_settings, rows, settings
from uniemo_ray.config import Config
from uniemo_ray.models.build import empty_net
from uniemo_ray.models.clip import embed_names, find_clip_config, load_clip
from uniemo_ray.models.uniemo import UniEmoNet, freeze_parts, parameter_groups, set_trainable
from uniemo_ray.settings_file import load_config
from uniemo_ray.training.buckets import plan_buckets
from uniemo_ray.training.deepspeed_settings import deepspeed_config
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.objectives import UnderstandingObjective
from uniemo_ray.training.schedule import rate_factor
from uniemo_ray.training.stage import build_stage

PRESETS = ("vit_b32_sd15", "vit_b16_sd15", "vit_l14_sd15", "vit_l14_sdxl")
FROZEN = None
TOWER, QUERIES, HEADS, FUSION = 8e-6, 5e-4, 1e-4, 1e-3
# name of a parameter: (rate, decay) in stage 1, the same in stage 2
TABLE: dict[str, tuple[tuple[float, float] | None, tuple[float, float] | None]] = {
    "encoder.visual.conv1.weight": ((TOWER, 1e-3), FROZEN),
    "encoder.visual.positional_embedding": ((TOWER, 1e-3), FROZEN),
    "encoder.visual.class_embedding": ((TOWER, 0), FROZEN),
    "encoder.visual.ln_pre.weight": ((TOWER, 0), FROZEN),
    "encoder.visual.transformer.resblocks.0.attn.in_proj_weight": ((TOWER, 1e-3), FROZEN),
    "encoder.visual.transformer.resblocks.0.mlp.c_fc.bias": ((TOWER, 0), FROZEN),
    "encoder.scene_queries": ((QUERIES, 1e-2), (QUERIES, 1e-2)),
    "encoder.object_queries": ((QUERIES, 1e-2), (QUERIES, 1e-2)),
    "encoder.scene_block.norm.weight": ((QUERIES, 0), (QUERIES, 0)),
    "encoder.object_block.layers.0.cross_attn.q_proj.weight": ((QUERIES, 1e-2), (QUERIES, 1e-2)),
    "encoder.object_block.layers.0.mlp.2.bias": ((QUERIES, 0), (QUERIES, 0)),
    "scene_projection.weight": (FROZEN, FROZEN),
    "object_projection.weight": (FROZEN, FROZEN),
    "classifier.0.weight": ((HEADS, 1e-2), FROZEN),
    "classifier.3.bias": ((HEADS, 0), FROZEN),
    "fusion.phi.cls.0.weight": (FROZEN, (FUSION, 1e-2)),
    "fusion.phi.scene.2.weight": (FROZEN, (FUSION, 1e-2)),
    "fusion.phi.object.2.bias": (FROZEN, (FUSION, 0)),
}


def full_size(config: Config) -> UniEmoNet:
    """The preset's own network, without weights."""
    clip, _ = find_clip_config(config.encoder.clip)
    with torch.device("meta"):
        return empty_net(
            config,
            clip_config=clip["model_cfg"],
            scene_names=["sea"],
            object_names=["cat"],
            text_width=config.diffusion.text_widths or (),
        )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", [1, 2])
def test_what_trains_and_how_fast(preset: str, stage: int) -> None:
    config = load_config(None, [f"preset={preset}_released"])
    net, train = full_size(config), config.stage1 if stage == 1 else config.stage2
    set_trainable(net, stage=1 if stage == 1 else 2, tower=config.encoder.tower)
    freeze_parts(net, train.rates)
    groups = parameter_groups(
        net, train.rates, train.weight_decay, tower_weight_decay=train.tower_weight_decay
    )
    values = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    found = {name: values.get(id(parameter)) for name, parameter in net.named_parameters()}
    assert {name: found[name] for name in TABLE} == {name: pair[stage - 1] for name, pair in TABLE.items()}
    assert not any("temperature" in name for name in found)


def test_the_rate_swings_as_torchs_own_scheduler_does() -> None:
    train = load_config(None, ["preset=vit_l14_sd15_released"]).stage1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=32)
    for step in range(200):
        ours = rate_factor(
            step,
            total=1000,
            warmup=train.warmup_steps,
            kind=train.schedule,
            half_cycle=train.half_cycle_steps,
        )
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_gradients_are_not_clipped_and_products_are_fp16(stage: str) -> None:
    train = getattr(load_config(None, ["preset=vit_l14_sd15_released"]), stage)
    buckets = plan_buckets(100, zero_stage=train.zero_stage, has_gpu=True)
    assert deepspeed_config(train, 1, precision="fp16", buckets=buckets)["gradient_clipping"] == 0
    assert train.precision == "fp16"


def test_epochs_batches_and_the_epoch_that_is_kept() -> None:
    config = load_config(None, ["preset=vit_l14_sd15_released"])
    first, second = config.stage1, config.stage2
    assert (first.epochs, first.batch_size, first.validate_on, first.keep_epoch) == (15, 128, "test", "best")
    assert (second.epochs, second.batch_size, second.keep_epoch, second.augment) == (1, 4, "last", False)


def of_preset(folders: dict[str, Path], stage: str, **values: object) -> dict[str, object]:
    """The preset's losses and starts on tiny models, whose conditions are too narrow for its other rules."""
    released = load_config(None, ["preset=vit_l14_sd15_released"])
    encoder = {"query_start": 1.0, "interactive_start": "normal"}
    sections = {"losses": released.losses.model_dump(mode="json"), "encoder": encoder}
    return settings(folders, stage, sections=sections, **values)


def test_stage_one_by_plain_arithmetic(folders: dict[str, Path]) -> None:
    """Scale 100 for scenes, 1 / 0.07 for objects, both directions; the row without a scene is a negative."""
    torch.manual_seed(0)
    parts = build_stage(as_settings(of_preset(folders, "understanding")))
    raw = rows()
    raw["scene"][1] = None
    batch = parts.collate(raw, epoch=0, is_training=False).tensors
    objective = parts.objective.eval()
    assert isinstance(objective, UnderstandingObjective)
    values = objective(batch)
    said = objective.net(objective._pixels(batch["pixels"]))
    clip = load_clip(str(folders["clip"]))
    scenes = [name or "scene" for name in raw["scene"]]
    objects = [names[-1] for names in raw["objects"]]
    expected = {}
    for kind, names, embedding, scale in (
        ("scene", scenes, said.scene_embedding, 100.0),
        ("object", objects, said.object_embedding, 1 / 0.07),
    ):
        text = embed_names(clip, names, is_verbatim=True)
        logits = scale * embedding @ text.T
        target = torch.arange(len(names))
        if kind == "scene":
            target[1] = -1
        both = [F.cross_entropy(each, target, ignore_index=-1) for each in (logits, logits.T)]
        expected[kind] = (sum(both) / 2).item()
    assert len(set(objects)) == len(objects)
    expected["class"] = F.cross_entropy(said.logits, batch["emotion"]).item()
    for kind, value in expected.items():
        assert values[f"{kind}_loss"].item() == pytest.approx(value, rel=1e-4), kind
    total = 0.05 * expected["scene"] + 0.05 * expected["object"] + 0.9 * expected["class"]
    assert values["loss"].item() == pytest.approx(total, rel=1e-4)


def test_stage_two_by_plain_arithmetic(folders: dict[str, Path]) -> None:
    """0.5 understanding by heads, 1e-6 triplet of margin 0.5 on logits, 1e-3 cross-entropy, 1 diffusion."""
    torch.manual_seed(0)
    parts = build_stage(as_settings(of_preset(folders, "joint", coefficients=alpha())))
    raw = rows()
    raw["scene"][1] = None
    batch = parts.collate(raw, epoch=0, is_training=False).tensors
    objective = parts.objective.eval()
    torch.manual_seed(5)
    values = objective(batch)
    inner = objective.understanding
    net, heads = inner.net, inner.heads
    said = net(objective.understanding._pixels(batch["pixels"]))
    kept = [0, 2, 3]
    scene = F.cross_entropy(heads.scene(said.features.scene[kept]), batch["scene"][kept])
    labels = torch.zeros(4, len(net.objects.names))
    for row, names in enumerate(raw["objects"]):
        labels[row, [net.objects.names.index(name) for name in names]] = 1
    object_ = F.binary_cross_entropy(torch.sigmoid(heads.object(said.features.object)), labels)
    emotion = batch["emotion"]
    understanding = 0.05 * scene + 0.05 * object_ + 0.9 * F.cross_entropy(said.logits, emotion)
    logits = net.condition_head(net.condition(said.features, emotion).vector)
    terms = []
    for i, label in enumerate(emotion.tolist()):
        best, second = said.logits[i].softmax(0).topk(2).indices.tolist()
        wrong = best if best != label else second
        cosine = [
            F.cosine_similarity(logits[i], F.one_hot(torch.tensor(k), 8).float(), dim=0)
            for k in (label, wrong)
        ]
        terms.append(max(0.0, (0.5 + cosine[1] - cosine[0]).item()))
    assert values["condition_loss"].item() == pytest.approx(sum(terms) / 4, rel=1e-4)
    cross_entropy = F.cross_entropy(logits, emotion)
    total = 0.5 * understanding + 1e-6 * sum(terms) / 4 + 1e-3 * cross_entropy + values["diffusion_loss"]
    assert values["understanding_loss"].item() == pytest.approx(understanding.item(), rel=1e-4)
    assert values["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_the_heads_of_stage_two_train_and_stay_out_of_the_model(folders: dict[str, Path]) -> None:
    parts = build_stage(as_settings(of_preset(folders, "joint", coefficients=alpha())))
    (heads,) = [g for g in parts.groups if g["name"] == "attribute_heads" and g["weight_decay"]]
    assert heads["lr"] == 1e-4
    engine = Engine(parts.objective, parts.groups, train=Config().stage2, total_steps=9, seed=0)
    before = parts.objective.understanding.heads.object.weight.detach().clone()
    engine.step(parts.collate(rows(), epoch=0, is_training=False).tensors)
    assert not torch.equal(before, parts.objective.understanding.heads.object.weight)
    assert not any("heads" in name for name in parts.exports["net"].state_dict())


@pytest.mark.slow
def test_where_queries_blocks_and_projections_start() -> None:
    config = load_config(None, ["preset=vit_b32_sd15_released"])
    torch.manual_seed(0)
    net = empty_net(
        config,
        clip_config=find_clip_config(config.encoder.clip)[0]["model_cfg"],
        scene_names=["sea"],
        object_names=["cat"],
        text_width=768,
    )
    queries = torch.cat([net.encoder.scene_queries, net.encoder.object_queries])
    assert queries.std().item() == pytest.approx(1, rel=0.02)
    assert net.scene_projection.weight.std().item() == pytest.approx(1, rel=0.02)
    layer = net.encoder.scene_block.layers[0].mlp[0]
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.any()
