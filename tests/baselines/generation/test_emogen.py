"""EmoGen's mapping: the shape of its network, its losses image by image, its emotion space, its files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.baselines.generation.reference import denoising_errors
from tests.baselines.generation.test_inversion import random, raw, stage
from tests.models.tiny import write_clip
from uniemo_ray.baselines.generation.batches import LatentBatches
from uniemo_ray.baselines.generation.emogen import (
    MappingBatches,
    MappingObjective,
    PromptMeaning,
    confidence_matrix,
    joint_projection,
)
from uniemo_ray.baselines.generation.losses import attribute_loss, weighted_by_confidence
from uniemo_ray.baselines.generation.mapping import (
    EmotionClouds,
    EmotionMapper,
    MappedFeatures,
    MapperShape,
    mapper_of,
    read_clouds,
    read_mapper,
)
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.emotions import MIKELS
from uniemo_ray.inference.provenance import encode_png
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.models.diffusion import DiffusionParts


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipParts:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(
    ("shape", "tensors"),
    [
        # what the released code names its tensors, by its switches
        (MapperShape(), {"mlp.0": (1024, 768), "mlp.2": (768, 1024)}),
        (MapperShape(relu=False), {"mlp.0": (1024, 768), "mlp.1": (768, 1024)}),
        (
            MapperShape(layers=3, layer_norm=True, dropout=True),
            {
                "mlp.0": (1024, 768),
                "mlp.1": (1024,),
                "mlp.4": (1024, 1024),
                "mlp.5": (1024,),
                "mlp.8": (768, 1024),
            },
        ),
    ],
)
def test_tensors_are_named_and_shaped_like_the_released_ones(
    shape: MapperShape, tensors: dict[str, tuple[int, ...]]
) -> None:
    state = EmotionMapper(768, 768, shape).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items() if name.endswith("weight")} == {
        f"{name}.weight": size for name, size in tensors.items()
    }
    assert {name for name in state if name.endswith("bias")} == {f"{name}.bias" for name in tensors}


def test_the_mapping_is_two_layers_with_a_relu() -> None:
    mapper, features = EmotionMapper(6, 4, MapperShape(hidden=5)), random(3, 6)
    first, last = mapper.mlp[0], mapper.mlp[-1]
    expected = (features @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(mapper(features), expected)


def test_attribute_loss_is_a_cross_entropy_over_cosine_similarities() -> None:
    meaning, attributes, index = random(4, 6, seed=1), random(5, 6, seed=2), torch.tensor([3, -1, 0, 4])
    expected = []
    for row, number in zip(meaning, index.tolist(), strict=True):
        cosines = [torch.dot(row, name) / (row.norm() * name.norm()) for name in attributes]
        total = sum(cosine.exp() for cosine in cosines)
        expected.append(torch.zeros(()) if number < 0 else -(cosines[number].exp() / total).log())
    torch.testing.assert_close(attribute_loss(meaning, attributes, index), torch.stack(expected))
    assert attribute_loss(meaning, torch.zeros(0, 6), torch.full((4,), -1)).tolist() == [0.0] * 4


def test_confidence_moves_weight_from_the_picture_to_the_meaning() -> None:
    picture, meaning = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])
    found = weighted_by_confidence(picture, meaning, torch.tensor([0.0, 0.25, 1.0]), weight=0.1)
    assert found.tolist() == pytest.approx([1.0, 0.75 * 2 + 0.1 * 0.25 * 20, 0.1 * 30])


def test_one_step_equals_the_published_loss(diffusion: DiffusionParts, clip: ClipParts) -> None:
    names = ("lion", "toy", "skull")
    preprocess, meaning = clip.preprocess(), PromptMeaning(diffusion, clip)
    torch.manual_seed(0)
    mapper = EmotionMapper(int(clip.model.visual.output_dim), 16, MapperShape(hidden=7))
    confidence = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    objective = MappingObjective(
        mapper,
        meaning=meaning,
        diffusion=diffusion,
        clip=clip,
        preprocess=preprocess,
        attributes=meaning.of_names(names),
        confidence=confidence,
        weight=0.3,
    )
    generator = np.random.default_rng(1)
    batch = {
        "pixels": torch.from_numpy(generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)),
        "latents": random(4, 4, 8, 8, seed=2),
        "emotion": torch.tensor([0, 1, 1, 0]),
        "attribute": torch.tensor([0, 2, -1, 1]),
    }
    torch.manual_seed(6)
    found = objective(batch)

    squares = (batch["pixels"].permute(0, 3, 1, 2).float() / 255 - torch.tensor(clip.mean)[:, None, None]) / (
        torch.tensor(clip.std)[:, None, None]
    )
    words = mapper(clip.model.encode_image(squares))
    # the published form: each image's word is written into the table, and the prompt is that word alone
    encoder, tokenizer = diffusion.text_encoder, diffusion.tokenizer
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    table = encoder.get_input_embeddings().weight
    hidden, pooled = [], []
    for word in words:
        spoken = torch.cat([table[[start]], word[None], table[[end]], table[[pad] * 13]])[None]
        handle = encoder.get_input_embeddings().register_forward_hook(lambda *_, spoken=spoken: spoken)
        said = encoder(torch.tensor([[start, 0, end, *[pad] * 13]]))
        handle.remove()
        hidden.append(said.last_hidden_state)
        pooled.append(said.pooler_output[0])
    errors = denoising_errors(diffusion, batch["latents"], torch.cat(hidden), seed=6)
    of_names = torch.cat(
        [
            encoder(tokenizer([name], padding="max_length", return_tensors="pt").input_ids).pooler_output
            for name in names
        ]
    )
    losses = []
    for row, (emotion, attribute) in enumerate(
        zip(batch["emotion"].tolist(), batch["attribute"].tolist(), strict=True)
    ):
        cosines = nn.functional.cosine_similarity(of_names, pooled[row][None])
        alpha = 0.0 if attribute < 0 else float(confidence[attribute, emotion])
        said_loss = 0.0 if attribute < 0 else -torch.log_softmax(cosines, dim=0)[attribute]
        losses.append((1 - alpha) * errors[row] + 0.3 * alpha * said_loss)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["reconstruction_loss"], errors.mean(), atol=1e-5, rtol=1e-5)

    mine = torch.autograd.grad(found["loss"], list(mapper.parameters()))
    theirs = torch.autograd.grad(expected, list(mapper.parameters()))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert {name for name, _ in objective.named_parameters()} == {
        f"mapper.{name}" for name, _ in mapper.named_parameters()
    }


def test_clips_projection_is_used_where_the_text_encoder_is_its_tower(diffusion: DiffusionParts) -> None:
    table = diffusion.text_encoder.get_input_embeddings().weight
    projection = random(16, 5)

    def clip_of(words: Tensor) -> Any:
        model = nn.Module()
        model.token_embedding = nn.Embedding(*words.shape, _weight=words.detach().clone())
        model.text_projection = nn.Parameter(projection)
        return SimpleNamespace(model=model)

    same = PromptMeaning(diffusion, clip_of(table.half().float()))  # as files in half precision have it
    other = PromptMeaning(diffusion, clip_of(table + 1))
    assert other.projection is None
    assert (same.described, other.described) == ("CLIP's joint space", "the text encoder's pooled output")
    torch.testing.assert_close(same(["lion"])[1], other(["lion"])[1] @ projection)
    assert joint_projection(diffusion, clip_of(random(7, 16))) is None


def test_sdxl_compares_meanings_by_its_second_text_encoder(xl: DiffusionParts, clip: ClipParts) -> None:
    states, meaning = PromptMeaning(xl, clip)(["lion", "toy"])
    assert torch.equal(meaning, xl.text_states(["lion", "toy"]).pooled)
    assert states.hidden.shape[-1] == xl.text_width


def test_a_cloud_is_the_mean_and_sample_deviation_of_each_dimension() -> None:
    features = {"awe": random(20, 3, seed=1).double() * 2 + 5, "fear": random(4, 3, seed=2).double()}
    sums = {name: FeatureSums.of(values.numpy()) for name, values in features.items()}
    clouds = EmotionClouds.of_sums(sums, ["fear", "anger", "awe"])
    torch.testing.assert_close(
        clouds.mean[[0, 2]].double(), torch.stack([features[n].mean(0) for n in sums][::-1])
    )
    torch.testing.assert_close(
        clouds.std[[0, 2]].double(), torch.stack([features[n].std(0) for n in sums][::-1])
    )
    drawn = torch.stack([clouds.draw(2, seed) for seed in range(400)])
    torch.testing.assert_close(drawn.mean(0), clouds.mean[2], atol=0.4, rtol=0)
    torch.testing.assert_close(drawn.std(0), clouds.std[2], atol=0.3, rtol=0)
    assert torch.equal(clouds.draw(2, 3), clouds.draw(2, 3))
    with pytest.raises(ValueError, match="too few training images"):
        clouds.draw(1, 0)


def test_an_image_of_an_emotion_has_a_word_of_its_own() -> None:
    mapper = EmotionMapper(3, 4, MapperShape(hidden=5))
    clouds = EmotionClouds(random(2, 3), torch.ones(2, 3))
    found = MappedFeatures(mapper, clouds, ("awe", "fear"))
    torch.testing.assert_close(found.draw("fear", 9), mapper(clouds.draw(1, 9)[None]).detach())
    assert found.draw("fear", 9).shape == (1, 4)
    assert not torch.equal(found.draw("fear", 9), found.draw("fear", 10))


def test_each_epoch_draws_one_attribute_of_an_image(clip: ClipParts) -> None:
    png = encode_png(np.zeros((40, 40, 3), dtype=np.uint8), {}, level=1)
    rows = raw(*["awe"] * 40) | {"image": np.array([png] * 40, dtype=object)}
    rows["scene"] = np.array(["sky", "sky", None, None] * 10, dtype=object)
    rows["objects"] = np.array([["boat", "sky"], [], ["boat"], None] * 10 + [None], dtype=object)[:40]
    batches = MappingBatches(
        latents=LatentBatches(space=MIKELS, seed=0),
        preprocess=clip.preprocess(),
        attributes=("beach", "sky", "boat", "sky"),  # a name may be both a scene and an object
        scenes=2,
        max_pixels=10**6,
    )
    found = batches(rows, epoch=0, is_training=True).tensors
    assert found["pixels"].shape == (40, 32, 32, 3)
    by_kind = [set(found["attribute"][kind::4].tolist()) for kind in range(4)]
    assert by_kind == [{1, 2, 3}, {1}, {2}, {-1}]
    later = batches(rows, epoch=1, is_training=True).tensors["attribute"]
    assert not torch.equal(found["attribute"], later)


def test_confidences_are_the_coefficients_above_the_threshold() -> None:
    config = stage("emogen", "generation_baselines.emogen.threshold=0.2").config
    eight = [0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0]
    settings = BaselineStage(
        config=config,
        baseline="emogen",
        scenes=("sky", "sea"),
        objects=("boat",),
        coefficients={"scene": {"sea": eight}, "object": {"boat": eight[::-1]}},
    )
    matrix = confidence_matrix(settings)
    assert matrix.shape == (3, 8)
    assert matrix[0].tolist() == [0.0] * 8
    assert matrix[1].tolist() == pytest.approx([0.0, 0.2, 0.3, 0.4, 0, 0, 0, 0])
    nothing = BaselineStage(config=config, baseline="emogen")
    assert confidence_matrix(nothing).shape == (0, 8)


def test_a_released_mapping_and_its_space_are_read(tmp_path: Path) -> None:
    mapper = EmotionMapper(6, 4, MapperShape(hidden=5))
    torch.save(mapper.state_dict(), tmp_path / "mapper.pth")
    read = read_mapper(tmp_path / "mapper.pth", MapperShape(hidden=5))
    torch.testing.assert_close(read(random(2, 6)), mapper(random(2, 6)))
    for number, label in enumerate(("awe", "fear")):
        torch.save(torch.full((6,), float(number)), tmp_path / f"{label}_mean_v2.pt")
        torch.save(torch.ones(6), tmp_path / f"{label}_std_v2.pt")
    clouds = read_clouds(tmp_path, ("fear", "awe"), width=6)
    assert clouds.mean[:, 0].tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"anger_mean_v2.pt"):
        read_clouds(tmp_path, ("anger",), width=6)
    with pytest.raises(ValueError, match=r"awe_mean_v2.pt does not hold 7 numbers"):
        read_clouds(tmp_path, ("awe",), width=7)


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        ({"fc.weight": torch.zeros(4, 6), "fc.bias": torch.zeros(4)}, MapperShape(hidden=5)),
        (EmotionMapper(6, 4, MapperShape(hidden=5)).state_dict(), MapperShape(hidden=5, relu=False)),
        (EmotionMapper(6, 4, MapperShape(hidden=5)).state_dict(), MapperShape(hidden=9)),
        ([1, 2], MapperShape(hidden=5)),
        ({}, MapperShape(hidden=5)),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(
    tmp_path: Path, content: Any, shape: MapperShape
) -> None:
    torch.save(content, tmp_path / "mapper.pth")
    with pytest.raises(ValueError, match=r"mapper.pth is no mapping of 2 layers") as caught:
        read_mapper(tmp_path / "mapper.pth", shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
def test_tensors_alone_make_the_mapping_in_whatever_order_a_file_gives_them(order: int) -> None:
    shape = MapperShape(layers=8, hidden=5, layer_norm=True)  # numbers of two digits
    mapper = EmotionMapper(6, 4, shape)
    state = dict(list(mapper.state_dict().items())[::order])
    torch.testing.assert_close(mapper_of(state, shape)(random(2, 6)), mapper(random(2, 6)))
