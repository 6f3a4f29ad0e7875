"""What the objectives return for a batch, against the losses put together by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.config import LossConfig
from uniemo_ray.losses import condition_loss, info_nce, object_head_loss, scene_head_loss
from uniemo_ray.models.attributes import AttributeBase
from uniemo_ray.models.encoder import Features
from uniemo_ray.models.heads import AttributeHeads
from uniemo_ray.models.uniemo import Temperatures, Understanding
from uniemo_ray.training import objectives
from uniemo_ray.training.chunks import Embeddings, Whole
from uniemo_ray.training.joint_objective import JointObjective
from uniemo_ray.training.objectives import UnderstandingObjective

WEIGHTS = {"scene_weight": 0.2, "object_weight": 0.3, "class_weight": 0.7}
JOINT = {"understanding_weight": 0.4, "condition_weight": 0.6, "diffusion_weight": 0.9}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Stands for the network: linear layers say different things of a picture's four numbers."""

    def __init__(self, *, has_queries: bool = True, has_names: bool = True) -> None:
        super().__init__()
        self.layers = nn.Parameter(random(4, 4, 5, seed=0))
        names = ("sea", "wood", "town") if has_names else ()
        self.scenes = AttributeBase(names, random(len(names), 5, seed=2))
        self.objects = AttributeBase(names, random(len(names), 5, seed=3))
        self.has_queries = has_queries

    def forward(self, pixels: Tensor) -> Understanding:
        cls, scene, object_, logits = torch.einsum("bi,kij->kbj", pixels, self.layers)
        if not self.has_queries:
            return Understanding(Features(cls, cls[:, None], None, None), logits, None, None)
        features = Features(cls, cls[:, None], scene, object_)
        return Understanding(features, logits, F.normalize(scene, dim=1), F.normalize(object_, dim=1))

    def temperatures(self) -> Temperatures:
        return Temperatures(scene=0.1, object=0.2)

    def condition(self, features: Features, emotion: Tensor) -> SimpleNamespace:
        assert features.scene is not None
        return SimpleNamespace(vector=features.cls + features.scene * emotion[:, None])

    def condition_logits(self, condition: Tensor) -> Tensor:
        return 2 * condition.flip(1)


class Diffusion:
    """Stands for the frozen parts: text states are conditions with the length of their prompt."""

    def __init__(self, *, trains: bool = False) -> None:
        self.denoiser = nn.Linear(1, 1).requires_grad_(trains)

    def text_states(self, prompts: list[str], condition: Tensor) -> Tensor:
        assert condition.dtype == torch.float32
        return condition * torch.tensor([[len(prompt)] for prompt in prompts])

    def encode_images(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3)) * 3

    def denoise_loss(self, latents: Tensor, states: Tensor) -> Tensor:
        return (latents.flatten(1).mean(dim=1) - states.mean(dim=1)).pow(2)


def batch() -> dict[str, Tensor]:
    return {
        "pixels": random(6, 4, seed=1),
        "emotion": torch.tensor([0, 1, 2, 3, 4, 0]),
        "scene": torch.tensor([0, 1, 2, 1, -1, 0]),
        "object": torch.tensor([0, 2, -1, 2, 0, 1]),
        "object_labels": (random(6, 3, seed=4) > 0).float(),
        "latents": random(6, 2, seed=5),
    }


def stage_1(net: Net | None = None, *, options: dict[str, Any] | None = None, **more: Any) -> Any:
    losses = LossConfig.model_validate(WEIGHTS | JOINT | (options or {}))
    return UnderstandingObjective(net or Net(), losses, **more)  # type: ignore[arg-type]


def stage_2(
    diffusion: Diffusion | None = None, *, options: dict[str, Any] | None = None, **more: Any
) -> JointObjective:
    losses = LossConfig.model_validate(WEIGHTS | JOINT | (options or {}))
    parts: Any = diffusion or Diffusion()
    return JointObjective(Net(), parts, losses, prompt="a <emotion> photo", **more)  # type: ignore[arg-type]


def names_of(base: AttributeBase, index: Tensor, stand_in: Tensor | None) -> Tensor:
    rows = base.embeddings[index.clamp(min=0)]
    return rows if stand_in is None else torch.where(index[:, None] < 0, stand_in, rows)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_symmetric": True},
        {"same_attribute_negatives": True},
        {"contrast": "worker"},
        {"missing_attribute": "negative"},
    ],
)
def test_stage_1_adds_two_contrasts_and_the_classification(options: dict[str, Any]) -> None:
    missing = random(2, 5, seed=6) if "missing_attribute" in options else None
    net, given = Net(), batch()
    found, said = stage_1(net, options=options, missing=missing).understand(given)
    asked = {"missing" if name == "missing_attribute" else name: value for name, value in options.items()}
    asked.pop("contrast", None)
    assert said.scene_embedding is not None
    assert said.object_embedding is not None
    scene = info_nce(
        said.scene_embedding,
        names_of(net.scenes, given["scene"], None if missing is None else missing[0]),
        given["scene"],
        temperature=0.1,
        **asked,
    )
    object_ = info_nce(
        said.object_embedding,
        names_of(net.objects, given["object"], None if missing is None else missing[1]),
        given["object"],
        temperature=0.2,
        **asked,
    )
    classification = F.cross_entropy(said.logits, given["emotion"])
    torch.testing.assert_close(
        dict(found),
        {
            "loss": 0.2 * scene + 0.3 * object_ + 0.7 * classification,
            "scene_loss": scene,
            "object_loss": object_,
            "class_loss": classification,
            "accuracy": (said.logits.argmax(dim=1) == given["emotion"]).float().mean(),
        },
    )
    assert scene > 0.1
    assert object_ > 0.1


def test_stage_1_counts_the_images_whose_best_emotion_is_right() -> None:
    net, given = Net(), batch()
    best = net(given["pixels"]).logits.argmax(dim=1)
    given["emotion"] = torch.cat([best[:4], (best[4:] + 1) % 5])
    found = stage_1(net)(given)
    assert found["accuracy"].item() == pytest.approx(4 / 6)


@pytest.mark.parametrize("contrast", ["global", "worker"])
def test_a_global_contrast_gathers_the_images_of_all_ranks(
    monkeypatch: pytest.MonkeyPatch, contrast: str
) -> None:
    """As on two ranks that hold the same images, but in one process; `test_objectives.py` has two."""
    monkeypatch.setattr(objectives, "gather_batch", lambda part, rows=None: torch.cat([part, part]))
    given = batch()
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in given.items()}
    found = stage_1(options={"contrast": contrast, "same_attribute_negatives": True})(given)
    alone = stage_1(options={"contrast": "worker", "same_attribute_negatives": True})
    wanted = alone(twice if contrast == "global" else given)
    for name in ("scene_loss", "object_loss"):
        torch.testing.assert_close(found[name], wanted[name])
    assert (alone(twice)["scene_loss"] - alone(given)["scene_loss"]).abs() > 0.1


@pytest.mark.parametrize("net", [Net(has_queries=False), Net(has_names=False)])
def test_without_queries_or_names_only_the_classification_is_left(net: Net) -> None:
    found = stage_1(net)(batch())
    assert found["scene_loss"] == found["object_loss"] == 0
    torch.testing.assert_close(found["loss"], 0.7 * found["class_loss"])


def test_heads_take_the_place_of_the_contrast() -> None:
    net, given, heads = Net(), batch(), AttributeHeads(5, scenes=3, objects=3)
    objective = stage_1(net, heads=heads)
    found, said = objective.understand(given)
    scene = scene_head_loss(heads.scene(said.features.scene), given["scene"])
    object_ = object_head_loss(heads.object(said.features.object), given["object_labels"])
    torch.testing.assert_close((found["scene_loss"], found["object_loss"]), (scene, object_))
    found["loss"].backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    assert stage_1(Net(has_queries=False), heads=heads)(given)["scene_loss"] == 0


def test_the_names_of_missing_attributes_are_not_saved() -> None:
    objective = stage_1(missing=random(2, 5, seed=6), heads=AttributeHeads(5, scenes=3, objects=3))
    assert "missing" in dict(objective.named_buffers())
    assert "missing" not in objective.state_dict()
    assert {"net.layers", "heads.scene.weight"} <= set(objective.state_dict())


@pytest.mark.parametrize("condition", ["triplet", "cross_entropy", "both", "none"])
def test_stage_2_adds_condition_and_diffusion(condition: Any) -> None:
    options = {"condition": condition, "margin": 0.9, "distance_of": "logits", "cross_entropy_weight": 0.05}
    objective, given = stage_2(options=options), batch()
    found = objective(given)
    stage_1_values, said = objective.understanding.understand(given)
    assert said.features.scene is not None
    vector = said.features.cls + said.features.scene * given["emotion"][:, None]
    logits = 2 * vector.flip(1)
    drawn = (given["latents"].mean(dim=1) - vector.mean(dim=1) * len("a <emotion> photo")).pow(2).mean()
    wanted = condition_loss(
        condition,
        logits,
        given["emotion"],
        understanding_logits=said.logits,
        margin=0.9,
        distance_of="logits",
    )
    entropy = F.cross_entropy(logits, given["emotion"])
    total = 0.4 * stage_1_values["loss"] + 0.6 * wanted + 0.9 * drawn
    expected = stage_1_values | {
        "loss": total + 0.05 * entropy if condition == "both" else total,
        "understanding_loss": stage_1_values["loss"],
        "condition_loss": wanted,
        "diffusion_loss": drawn,
        "condition_accuracy": (logits.argmax(dim=1) == given["emotion"]).float().mean(),
    }
    if condition == "both":
        expected["condition_cross_entropy"] = entropy
    torch.testing.assert_close(dict(found), expected)
    assert drawn > 0.1


def test_stage_2_counts_the_conditions_that_show_their_emotion(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, given = stage_2(), batch()
    net = objective.understanding.net
    shown = net.condition_logits(net(given["pixels"]).features.cls).argmax(dim=1)
    monkeypatch.setattr(net, "condition", lambda features, _: SimpleNamespace(vector=features.cls))
    given["emotion"] = torch.cat([shown[:4], (shown[4:] + 1) % 5])
    assert objective(given)["condition_accuracy"].item() == pytest.approx(4 / 6)


def test_stage_2_encodes_pictures_when_there_are_no_latents() -> None:
    given = batch()
    pixels = random(6, 2, 4, 4, seed=7)
    encoded = given | {"latents": pixels.mean(dim=(2, 3)) * 3}
    wanted = stage_2()(encoded)
    given.pop("latents")
    torch.testing.assert_close(stage_2()(given | {"unit_pixels": pixels}), wanted)
    unread = {"unit_pixels": torch.zeros(6, 2, 4, 4)}
    torch.testing.assert_close(stage_2()(encoded | unread), wanted)  # latents come first


def test_stage_2_hands_heads_and_missing_names_to_the_understanding() -> None:
    heads, missing = AttributeHeads(5, scenes=3, objects=3), random(2, 5, seed=6)
    objective = stage_2(heads=heads, missing=missing)
    assert objective.understanding.heads is heads
    assert objective.understanding.missing is missing


def test_only_a_denoiser_that_trains_is_part_of_stage_2() -> None:
    for trains in (False, True):
        names = {name for name, _ in stage_2(Diffusion(trains=trains)).named_parameters()}
        assert any("denoiser" in name for name in names) == trains
        assert "understanding.net.layers" in names


def test_the_text_encoder_gets_fp32_conditions_under_autocast() -> None:
    objective, given = stage_2(), batch()
    given["pixels"] = given["pixels"].bfloat16()
    objective.understanding.net.bfloat16()
    objective.understanding.net.scenes.float()
    objective.understanding.net.objects.float()
    assert objective(given)["diffusion_loss"].dtype == torch.float32


def test_stage_2_embeds_contrasts_and_counts_as_its_understanding_does() -> None:
    joint, given = stage_2(), batch()
    own = joint.understanding
    found, wanted = joint(given, embeds=True), own.embed(given)
    assert isinstance(found, Embeddings)
    torch.testing.assert_close(found.queries, wanted.queries)
    assert set(found.temperatures) == {"scene", "object"}
    for kind, queries in found.queries.items():
        arguments = (kind, queries, given[kind], 0.2, None)
        torch.testing.assert_close(joint.contrast(*arguments), own.contrast(*arguments))
    assert joint.is_contrasted()
    assert joint.label_counts(given) == {}
    with_heads = stage_2(heads=AttributeHeads(5, scenes=3, objects=3))
    assert not with_heads.is_contrasted()
    counts = with_heads.label_counts(given)
    assert counts["scene"] == 5
    assert counts["object"] == given["object_labels"].any(dim=1).sum()


def test_stage_2_compares_with_the_global_batch_that_it_is_a_part_of() -> None:
    given, joint = batch(), stage_2()
    contrasts = {kind: Contrasted(kind) for kind in ("scene", "object")}
    whole = Whole([6], contrasts=contrasts)  # type: ignore[arg-type]
    found = joint(given, whole)
    assert (found["scene_loss"], found["object_loss"]) == (7, 8)


class Contrasted:
    """A contrast that was computed before."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def surrogate(self, queries: Tensor, temperature: Tensor | float) -> Tensor:
        return torch.tensor(7.0 if self.kind == "scene" else 8.0)
