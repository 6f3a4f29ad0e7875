"""Released checkpoints: what comes in computes what the released code does, and goes out again."""

import json
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms as T

from tests.models.released_code import (
    MAPPERS,
    EmotionHead,
    Mapper,
    Sizes,
    mapped,
    random_checkpoint,
    released_condition,
    released_forward,
    released_text,
    released_weight,
    save_stage_1,
)
from tests.models.tiny import write_xl_pipeline
from tools.tiny.words import write_tokenizers
from uniemo_ray import UniEmo
from uniemo_ray.data.preprocess import make_preprocess
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.inference.model_folder import load_model_folder, save_model_folder
from uniemo_ray.inference.pictures import read_picture
from uniemo_ray.inference.released import export_checkpoint, import_checkpoint, read_released, write_released
from uniemo_ray.models import weights_folder
from uniemo_ray.models.clip import CONFIG_FILE, MERGES_FILE
from uniemo_ray.models.released import check_switches, to_released
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.local import LocalStore

PRESET = "vit_l14_sd15_released"
NAMES = AttributeNames(("beach", "amusement_park"), ("lion", "skull", "toy"))
BOTH = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP's architecture and vocabulary without weights: those come from the checkpoint."""
    return write_architecture(tmp_path_factory.mktemp("architecture"), joint=16)


@pytest.fixture(scope="module")
def wide_clip_folder(tmp_path_factory):
    """One whose names are wider than the tiny diffusion model's words."""
    return write_architecture(tmp_path_factory.mktemp("wide"), joint=48)


def write_architecture(folder, *, joint):
    write_tokenizers(clip_dir=folder, pipeline_tokenizer_dir=folder / "unused")
    sizes = sizes_of(folder)
    vision = {"image_size": 32, "layers": 6, "width": 128, "patch_size": 8, "head_width": 64}
    text = {"context_length": 16, "vocab_size": sizes.vocabulary, "width": 64, "heads": 1, "layers": 1}
    model = {"embed_dim": joint, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    return folder


def sizes_of(folder, *, joint=16):
    vocabulary = json.loads((folder / "unused" / "vocab.json").read_text())
    return Sizes(vocabulary=len(vocabulary), joint=joint)


def config(clip_folder, *overrides):
    own = [f"encoder.clip={clip_folder}", "encoder.clip_pretrained=null", "diffusion.text_widths=[16]"]
    own.append("fusion.condition_head=own")  # these conditions are too narrow for the classifier's last layer
    return load_config(None, [f"preset={PRESET}", *own, *overrides])


@pytest.fixture
def checkpoint(clip_folder):
    return random_checkpoint(sizes_of(clip_folder))


def run_import(clip_folder, sections, tmp_path, *overrides, **options):
    path = tmp_path / ("stage2" if "mapper" in sections else "best.pth")
    write_released(sections, path)
    report = import_checkpoint(path, config(clip_folder, *overrides), str(tmp_path / "model"), **options)
    return report, tmp_path / "model"


def check_same(net, sections, pixels, *, layers):
    expected = released_forward(sections, pixels, layers=layers)
    with torch.no_grad():
        said = net.understand(pixels)
    torch.testing.assert_close(said.features.cls, expected.cls, **BOTH)
    torch.testing.assert_close(said.features.scene, expected.scene, **BOTH)
    torch.testing.assert_close(said.features.object, expected.object, **BOTH)
    torch.testing.assert_close(said.scene_embedding, expected.scene_embedding, **BOTH)
    torch.testing.assert_close(said.object_embedding, expected.object_embedding, **BOTH)
    torch.testing.assert_close(said.logits, expected.logits, **BOTH)
    return expected


def test_an_import_computes_what_the_released_code_does(clip_folder, checkpoint, tmp_path):
    report, folder = run_import(clip_folder, checkpoint, tmp_path, names=NAMES)
    parts = load_model_folder(folder)
    check_same(parts.net, checkpoint, torch.randn(3, 3, 32, 32), layers=6)
    temperatures = parts.net.temperatures()
    assert temperatures.scene == pytest.approx(torch.tensor(-2.6).exp().item())
    assert temperatures.object == pytest.approx(torch.tensor(-3.1).exp().item())
    assert report.fresh == ("fusion", "condition_head")
    assert not report.has_diffusion
    unused = {"visual_query_last_proj", "visual.visual_query_last.weight"}
    alphas = {f"visual.transformer.visual_query_interact.{i}.query_alpha" for i in range(2)}
    again, _ = run_import(clip_folder, checkpoint, tmp_path, names=NAMES)
    assert again.fingerprint == report.fingerprint
    assert set(report.unused) == {f"model[{name}]" for name in unused | alphas}


def test_a_whole_file_of_stage_1_comes_in(clip_folder, checkpoint, tmp_path):
    """With arguments, epoch, accuracy and the states of optimizer and schedule, all of which are left out."""
    save_stage_1(checkpoint, tmp_path / "best.pth")
    save_stage_1(checkpoint, tmp_path / "gpus.pth", prefix="module.")
    for n, prefix in enumerate(("_orig_mod.", "_orig_mod.module.", "module._orig_mod.")):
        save_stage_1(checkpoint, tmp_path / f"compiled{n}.pth", prefix=prefix)
    for name in ("best", "gpus", "compiled0", "compiled1", "compiled2"):
        sections = read_released(tmp_path / f"{name}.pth")
        assert sections.keys() == checkpoint.keys()
        for section, state in checkpoint.items():
            assert sections[section].keys() == state.keys()
            assert all(torch.equal(sections[section][key], value) for key, value in state.items())
    import_checkpoint(tmp_path / "best.pth", config(clip_folder), str(tmp_path / "model"))
    check_same(load_model_folder(tmp_path / "model").net, checkpoint, torch.randn(2, 3, 32, 32), layers=6)


def test_the_released_classes_load_what_is_exported(clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    _, folder = run_import(clip_folder, sections, tmp_path, with_diffusion=False)
    export_checkpoint(str(folder), tmp_path / "out")
    for name in MAPPERS:
        state = torch.load(tmp_path / "out" / f"{name}.pth", weights_only=True)
        Mapper(128, 16).load_state_dict(state, strict=True)
    both = torch.load(tmp_path / "out" / "VIT_query.pth", weights_only=True)
    EmotionHead(128).load_state_dict(both["Emo_classifier"], strict=True)
    missing = sections["model"].keys() ^ both["model"].keys()
    assert missing == {"visual.visual_query_last.weight", "visual_query_last_proj"}


def test_a_checkpoint_folder_of_deepspeed_is_named(tmp_path):
    (tmp_path / "global_step7").mkdir()
    (tmp_path / "global_step7" / "mp_rank_00_model_states.pt").touch()
    with pytest.raises(ValueError, match=r"is a checkpoint of DeepSpeed: give a run's folder `model`"):
        read_released(tmp_path)


def test_mappers_may_come_as_their_layers_alone(clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    write_released(sections, tmp_path / "stage2")
    for name in MAPPERS:
        bare = {f"module.{key.removeprefix('mlp.')}": value for key, value in sections[name].items()}
        torch.save(bare, tmp_path / "stage2" / f"{name}.pth")
        assert read_released(tmp_path / "stage2")[name].keys() == sections[name].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"interactive_context": "patches"},
        {"interactive_residual": "beta"},
        {"stage_layers": [1, 4]},
    ],
)
def test_with_another_switch_it_computes_something_else(clip_folder, checkpoint, tmp_path, change):
    overrides = [f"encoder.{key}={value}" for key, value in change.items()]
    _, folder = run_import(clip_folder, checkpoint, tmp_path, *overrides)
    with pytest.raises(AssertionError):
        check_same(load_model_folder(folder).net, checkpoint, torch.randn(3, 3, 32, 32), layers=6)


def test_names_are_embedded_by_the_checkpoints_own_text_tower(clip_folder, checkpoint, tmp_path):
    _, folder = run_import(clip_folder, checkpoint, tmp_path, names=NAMES)
    model = UniEmo.from_pretrained(folder)
    assert model.net.scenes.names == NAMES.scenes
    assert model.net.objects.embeddings.shape == (3, 16)
    torch.testing.assert_close(model.net.objects.embeddings.norm(dim=1), torch.ones(3))
    other = {**checkpoint, "model": {**checkpoint["model"]}}
    other["model"]["text_projection"] = checkpoint["model"]["text_projection"].flip(0)
    (tmp_path / "other").mkdir()
    _, second = run_import(clip_folder, other, tmp_path / "other", names=NAMES)
    assert not torch.allclose(load_model_folder(second).net.scenes.embeddings, model.net.scenes.embeddings)
    (seen,) = model.understand([(torch.rand(40, 40, 3) * 255).byte().numpy()], with_attention=True)
    assert {name for name, _ in seen.objects} == set(NAMES.objects)


def test_a_model_that_only_understands_says_so(clip_folder, checkpoint, tmp_path):
    _, folder = run_import(clip_folder, checkpoint, tmp_path)
    model = UniEmo.from_pretrained(folder)
    with pytest.raises(ValueError, match="holds no diffusion model"):
        model.generate("awe")
    assert save_model_folder(model.parts, tmp_path / "again") == model.parts.fingerprint


def test_stage_2_brings_its_mappers(clip_folder, pipeline_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    report, folder = run_import(
        clip_folder, sections, tmp_path, f"diffusion.model={pipeline_folder}", names=NAMES
    )
    assert (report.fresh, report.has_diffusion) == (("condition_head",), True)
    parts = load_model_folder(folder)
    assert parts.diffusion.text_width == 16
    model = UniEmo(parts)
    with pytest.raises(ValueError, match="holds no image of 'awe'"):
        model.generate("awe", steps=1, size=16)
    check_same(parts.net, sections, torch.randn(2, 3, 32, 32), layers=6)


def tokens_of(folder, names):
    return SimpleTokenizer(bpe_path=str(folder / MERGES_FILE), context_length=16)(names)


def with_coefficients(net):
    """Every name has another alpha; returns those of objects and scenes, in this order."""
    rows = torch.rand(5, 8, generator=torch.Generator().manual_seed(5))
    objects, scenes = rows[:3].tolist(), rows[3:].tolist()
    net.objects.set_coefficients(dict(zip(NAMES.objects, objects, strict=True)))
    net.scenes.set_coefficients(dict(zip(NAMES.scenes, scenes, strict=True)))
    return objects + scenes


def imported_stage_2(clip_folder, tmp_path, *overrides):
    """A stage-2 checkpoint, its network, and what the released code computes of 24 pictures."""
    sections = random_checkpoint(sizes_of(clip_folder), seed=7, with_mappers=True)
    _, folder = run_import(clip_folder, sections, tmp_path, *overrides, names=NAMES, with_diffusion=False)
    pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    net = load_model_folder(folder).net
    return sections, net, pixels, check_same(net, sections, pixels, layers=6)


def test_stage_2_gives_the_released_condition(clip_folder, tmp_path):
    """Mapped queries find their attributes among scenes and objects together, names with underscores."""
    sections, net, pixels, said = imported_stage_2(clip_folder, tmp_path)
    alphas = with_coefficients(net)
    emotion = torch.arange(24) % 8
    total = released_text(sections, tokens_of(clip_folder, [*NAMES.objects, *NAMES.scenes]), layers=1)
    kinds = (("scene", said.scene), ("object", said.object))
    weights = [
        released_weight(total, alphas, mapped(sections, f"mapper_{kind}", feature), emotion)
        for kind, feature in kinds
    ]
    with torch.no_grad():
        ours = net.condition(net.understand(pixels).features, emotion)
    torch.testing.assert_close(ours.scene_weight, weights[0])
    torch.testing.assert_close(ours.object_weight, weights[1])
    torch.testing.assert_close(ours.vector, released_condition(sections, said, *weights), **BOTH)
    chosen = {net.choices("scene")[i] for i in ours.scene_index}
    assert chosen & set(NAMES.objects), "no scene query has found an object: the test cannot tell the rules"
    spaced = [name.replace("_", " ") for name in (*NAMES.objects, *NAMES.scenes)]
    other = released_text(sections, tokens_of(clip_folder, spaced), layers=1)
    torch.testing.assert_close(net.mapped.embeddings, F.normalize(total, dim=1), **BOTH)
    assert not torch.allclose(net.mapped.embeddings, F.normalize(other, dim=1), atol=1e-3)


def pictures(count=12):
    """Encoded pictures of several sides, with edges in which one filter is not the other."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(count):
        blocks = rng.integers(0, 255, (6 + i % 3, 7, 3), dtype=np.uint8)
        file = BytesIO()
        picture = Image.fromarray(np.kron(blocks, np.ones((9, 11, 1), np.uint8)))
        picture.save(file, format="PNG" if i % 2 else "JPEG")
        found.append(file.getvalue())
    return found


def shown(data, *, shorter, mean, std):
    """An independent pipeline from encoded bytes to input."""
    steps = [T.Resize(shorter), T.CenterCrop(32), T.ToTensor(), T.Normalize(mean, std)]
    return torch.stack([T.Compose(steps)(Image.open(BytesIO(one)).convert("RGB")) for one in data])


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_stage_1_says_of_a_picture_what_the_released_code_says(clip_folder, checkpoint, tmp_path):
    """From encoded bytes to probabilities: bilinear, ImageNet's mean and deviation."""
    _, folder = run_import(clip_folder, checkpoint, tmp_path)
    model, data = UniEmo.from_pretrained(folder), pictures()
    ours = torch.tensor([list(one.emotions.values()) for one in model.understand(data)])
    said = released_forward(checkpoint, shown(data, shorter=32, **IMAGENET), layers=6)
    torch.testing.assert_close(ours.float(), said.logits.softmax(dim=1), **BOTH)
    other = released_forward(checkpoint, shown(data, shorter=36, **HALF), layers=6)
    assert (other.logits.softmax(dim=1) - ours).abs().max() > 0.01, "the test cannot tell two pipelines"


def test_stage_2_makes_of_a_picture_the_released_condition(clip_folder, tmp_path):
    """From encoded bytes to the condition: shorter side 256 of 224, bilinear, mean and deviation 0.5."""
    sections, _, _, _ = imported_stage_2(clip_folder, tmp_path)
    model, data = UniEmo.from_pretrained(tmp_path / "model"), pictures()
    alphas, emotion = with_coefficients(model.net), torch.arange(12) % 8
    said = released_forward(sections, shown(data, shorter=36, **HALF), layers=6)
    total = released_text(sections, tokens_of(clip_folder, [*NAMES.objects, *NAMES.scenes]), layers=1)
    weights = [
        released_weight(total, alphas, mapped(sections, f"mapper_{kind}", feature), emotion)
        for kind, feature in (("scene", said.scene), ("object", said.object))
    ]
    squares = [model.preprocess.square(read_picture(one, 0)) for one in data]
    with torch.no_grad():
        ours = model.net.condition(model.net.understand(model.preprocess.pixels(squares)).features, emotion)
    torch.testing.assert_close(ours.vector, released_condition(sections, said, *weights), **BOTH)
    stated = json.loads((tmp_path / "model" / "config.json").read_text())["config"]
    assert (stated["encoder"]["preprocess"], stated["fusion"]["match"]) == ("half", "mapped")


def test_the_projected_rule_gives_another_condition(clip_folder, tmp_path):
    """The paper's rule on the same checkpoint: a scene query finds a scene."""
    (tmp_path / "other").mkdir()
    _, mapped_net, pixels, _ = imported_stage_2(clip_folder, tmp_path)
    _, net, _, _ = imported_stage_2(clip_folder, tmp_path / "other", "fusion.match=projected")
    assert net.mapped is None
    emotion = torch.arange(24) % 8
    for each in (net, mapped_net):
        with_coefficients(each)
    with torch.no_grad():
        features = net.understand(pixels).features
        ours, theirs = net.condition(features, emotion), mapped_net.condition(features, emotion)
    assert {net.choices("scene")[i] for i in ours.scene_index} <= set(NAMES.scenes)
    assert not torch.allclose(ours.vector, theirs.vector)


def test_a_folder_keeps_the_rule_and_completing_keeps_its_names(clip_folder, tmp_path):
    _, folder = run_import(
        clip_folder,
        random_checkpoint(sizes_of(clip_folder), with_mappers=True),
        tmp_path,
        names=NAMES,
        with_diffusion=False,
    )
    parts = load_model_folder(folder)
    assert parts.config.fusion.match == "mapped"
    assert save_model_folder(parts, tmp_path / "again") == parts.fingerprint
    again = load_model_folder(tmp_path / "again").net
    assert torch.equal(again.mapped.embeddings, parts.net.mapped.embeddings)


def test_a_folder_of_the_papers_rule_does_not_state_it(clip_folder, checkpoint, tmp_path):
    """It is as old folders are, and has their fingerprint."""
    _, folder = run_import(clip_folder, checkpoint, tmp_path)
    stated = json.loads((folder / "config.json").read_text())["config"]["fusion"]
    assert stated == {"members": ["cls", "scene", "object"], "use_coefficients": True}


def test_an_older_folder_sees_pictures_as_clip_does(model_folder):
    """And a new one of CLIP's own preprocessing states no more than an old one."""
    stated = json.loads((model_folder / "config.json").read_text())["config"]
    assert "preprocess" not in stated["encoder"]
    model = UniEmo.from_pretrained(model_folder)
    assert model.preprocess == make_preprocess("clip", size_px=32, mean=model.mean, std=model.std)
    assert model.mean == OPENAI_DATASET_MEAN


def test_names_and_conditions_of_two_widths_cannot_be_compared(wide_clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(wide_clip_folder, joint=48), with_mappers=True)
    with pytest.raises(
        ValueError, match=r"conditions are 16 wide and CLIP's names 48: .*fusion\.match=projected"
    ):
        run_import(wide_clip_folder, sections, tmp_path, with_diffusion=False)
    report, _ = run_import(
        wide_clip_folder, sections, tmp_path, "fusion.match=projected", with_diffusion=False
    )
    assert report.match == "projected"


def test_export_of_a_folder_refuses_the_papers_rule(clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    _, folder = run_import(clip_folder, sections, tmp_path, "fusion.match=projected", with_diffusion=False)
    with pytest.raises(ValueError, match=r"finds attributes by fusion\.match 'projected', the released"):
        export_checkpoint(str(folder), tmp_path / "out")
    export_checkpoint(str(folder), tmp_path / "out.pth")


def test_export_gives_back_every_tensor(clip_folder, tmp_path):
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    _, folder = run_import(clip_folder, sections, tmp_path, with_diffusion=False)
    export_checkpoint(str(folder), tmp_path / "out")
    again = read_released(tmp_path / "out")
    assert again.keys() == sections.keys()
    for name, section in sections.items():
        kept = {key for key in section if "_last" not in key}
        assert again[name].keys() == kept
        assert all(torch.equal(again[name][key], section[key]) for key in kept)
    export_checkpoint(str(folder), tmp_path / "one.pth")
    assert read_released(tmp_path / "one.pth").keys() == {"model", "Emo_classifier"}
    with pytest.raises(ValueError, match="is there already"):
        export_checkpoint(str(folder), tmp_path / "out")


def test_export_folds_where_our_fusion_starts(clip_folder, tmp_path):
    """Offset and scale have no place in a released checkpoint; the condition must stay the same."""
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    _, folder = run_import(clip_folder, sections, tmp_path, with_diffusion=False)
    parts = load_model_folder(folder)
    fusion = parts.net.fusion
    fusion.offset.copy_(torch.randn(16))
    fusion.scale.copy_(torch.rand(16) + 0.5)
    save_model_folder(parts, tmp_path / "moved")
    export_checkpoint(str(tmp_path / "moved"), tmp_path / "out")
    pixels, weights = torch.randn(2, 3, 32, 32), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        ours = fusion(
            parts.net.understand(pixels).features, scene_weight=weights, object_weight=weights.flip(0)
        )
    written = read_released(tmp_path / "out")
    said = released_forward(written, pixels, layers=6)
    torch.testing.assert_close(ours, released_condition(written, said, weights, weights.flip(0)), **BOTH)


def test_export_refuses_what_the_released_code_cannot_compute(parts, tmp_path):
    save_model_folder(parts, tmp_path / "model")
    with pytest.raises(ValueError, match=r"released code has encoder\.\w+ "):
        export_checkpoint(str(tmp_path / "model"), tmp_path / "out")


def test_export_refuses_a_fusion_without_coefficients(clip_folder, tmp_path):
    """Its tensors would fit, and the released code would weigh what this model does not."""
    sections = random_checkpoint(sizes_of(clip_folder), with_mappers=True)
    override = "fusion.use_coefficients=false"
    _, folder = run_import(clip_folder, sections, tmp_path, override, with_diffusion=False)
    with pytest.raises(ValueError, match=r"this model has fusion\.use_coefficients false"):
        export_checkpoint(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_refuses_another_number_of_queries_or_classes(clip_folder, checkpoint, tmp_path):
    _, folder = run_import(clip_folder, checkpoint, tmp_path)
    net = load_model_folder(folder).net
    net.classifier[-1] = torch.nn.Linear(768, 2)
    with pytest.raises(ValueError, match="released code tells 8 emotions apart, this model 2 classes"):
        to_released(net, {})
    with pytest.raises(ValueError, match=r"released code has encoder\.query_length 32, this model 8"):
        check_switches(config(clip_folder, "encoder.query_length=8").encoder)


def test_export_hands_out_no_mappers_that_were_never_trained(clip_folder, checkpoint, tmp_path):
    """Of a checkpoint of stage 1, and of what is saved of it again."""
    _, folder = run_import(clip_folder, checkpoint, tmp_path)
    save_model_folder(replace(load_model_folder(folder), card="mine"), tmp_path / "again")
    for model in (folder, tmp_path / "again"):
        with pytest.raises(ValueError, match=r"was trained in stage 1 alone, .* give --out a \.pth file"):
            export_checkpoint(str(model), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_clip_in_a_bucket_brings_its_own_config(clip_folder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_folder, "open_store", lambda _: LocalStore(clip_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket = ["encoder.clip=s3://bucket/clip", "encoder.clip_pretrained=openai"]
    report, _ = run_import(clip_folder, checkpoint, tmp_path, *bucket)
    assert report.taken


def test_half_precision_comes_in_as_fp32(clip_folder, checkpoint, tmp_path):
    half = {name: {key: value.half() for key, value in s.items()} for name, s in checkpoint.items()}
    _, folder = run_import(clip_folder, half, tmp_path)
    full = {name: {key: value.float() for key, value in s.items()} for name, s in half.items()}
    check_same(load_model_folder(folder).net, full, torch.randn(2, 3, 32, 32), layers=6)


class Elsewhere:
    """A class that no checkpoint of the released code holds."""


class TestBadInput:
    """One line each, nothing written."""

    @pytest.fixture
    def refuse(self, clip_folder, tmp_path):
        def check(path, words, *overrides):
            with pytest.raises(ValueError, match=words) as error:
                import_checkpoint(path, config(clip_folder, *overrides), str(tmp_path / "model"))
            assert "\n" not in str(error.value)
            assert not (tmp_path / "model").exists()

        return check

    def test_another_shape_is_named_with_both(self, checkpoint, refuse, tmp_path):
        checkpoint["model"]["visual.conv1.weight"] = torch.zeros(64, 3, 8, 8)
        write_released(checkpoint, tmp_path / "a.pth")
        refuse(
            tmp_path / "a.pth",
            r"model\[visual\.conv1\.weight\] has shape \(64, 3, 8, 8\), expected \(128, 3, 8, 8\)",
        )

    @pytest.mark.slow
    def test_another_clip_is_named_with_both_shapes(self, checkpoint, tmp_path):
        write_released(checkpoint, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"does not fit the preset: model\[visual\.\S+ has shape .*1024"):
            import_checkpoint(
                tmp_path / "a.pth", load_config(None, [f"preset={PRESET}"]), str(tmp_path / "m")
            )

    def test_a_projection_the_wrong_way_round_is_named(self, checkpoint, refuse, tmp_path):
        checkpoint["model"]["visual_query_scene_proj"] = torch.zeros(16, 128)
        write_released(checkpoint, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", r"visual_query_scene_proj\] has shape \(16, 128\), expected \(128, 16\)")

    @pytest.mark.parametrize("key", ["visual.ln_post.bias", "text_projection"])
    def test_a_missing_tensor_is_named(self, checkpoint, refuse, tmp_path, key):
        del checkpoint["model"][key]
        write_released(checkpoint, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", rf"lacks model\[{key}\]")

    def test_more_layers_than_the_preset_has(self, checkpoint, refuse, tmp_path):
        name = "visual.transformer.visual_query_interact.0.query_decoder"
        model = checkpoint["model"]
        model |= {k.replace(f"{name}.0", f"{name}.1"): v for k, v in list(model.items()) if f"{name}.0" in k}
        write_released(checkpoint, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", r"nothing takes its model\[\S*query_decoder\.1")

    def test_the_papers_preset(self, checkpoint, refuse, tmp_path):
        write_released(checkpoint, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", r"lacks model\[\S*query_decoder\.1", "encoder.interactive_layers=2")

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_a_truncated_file(self, checkpoint, refuse, tmp_path, share):
        write_released(checkpoint, tmp_path / "a.pth")
        data = (tmp_path / "a.pth").read_bytes()
        (tmp_path / "a.pth").write_bytes(data[: int(share * len(data))])
        refuse(tmp_path / "a.pth", r"a\.pth is damaged")

    def test_a_file_with_code_in_it_is_not_run(self, refuse, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        torch.save({"model": Trap()}, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", r"\(it names _?io\.open, which is not allowed\): nothing of it")
        assert not (tmp_path / "sprung").exists()

    def test_a_type_that_is_not_allowed_is_named_in_full(self, checkpoint, refuse, tmp_path):
        torch.save(checkpoint | {"config": Elsewhere()}, tmp_path / "a.pth")
        name = r"tests\.inference\.test_released\.Elsewhere"
        refuse(tmp_path / "a.pth", rf"^[^\x1b]*\(it names {name}, which is not allowed\)[^\x1b]*$")

    @pytest.mark.parametrize("content", [{}, {"model": {}}, [1], {"state_dict": {"a": torch.zeros(1)}}])
    def test_something_else(self, refuse, tmp_path, content):
        torch.save(content, tmp_path / "a.pth")
        refuse(tmp_path / "a.pth", "has no 'model'|expected a dictionary")

    def test_no_file(self, refuse, tmp_path):
        refuse(tmp_path / "nowhere.pth", "does not exist")

    def test_a_mapper_is_missing(self, clip_folder, refuse, tmp_path):
        write_released(random_checkpoint(sizes_of(clip_folder), with_mappers=True), tmp_path / "stage2")
        (tmp_path / "stage2" / "mapper_scene.pth").unlink()
        refuse(tmp_path / "stage2", r"mapper_scene\.pth does not exist")

    def test_a_mapper_for_another_diffusion_model(self, clip_folder, refuse, tmp_path):
        write_released(random_checkpoint(sizes_of(clip_folder), with_mappers=True), tmp_path / "stage2")
        refuse(
            tmp_path / "stage2",
            r"mapper\[mlp\.2\.\w+\] has shape \(16.*expected \(24",
            "diffusion.text_widths=[24]",
        )

    def test_another_diffusion_model_than_that_of_the_preset(self, clip_folder, refuse, tmp_path):
        write_released(random_checkpoint(sizes_of(clip_folder), with_mappers=True), tmp_path / "stage2")
        write_xl_pipeline(tmp_path / "xl")
        refuse(
            tmp_path / "stage2",
            r"text_widths is \(16,\), but .* has text encoders of \(16, 24\)",
            f"diffusion.model={tmp_path / 'xl'}",
        )

    def test_the_diffusion_model_lacks_a_part(self, clip_folder, pipeline_folder, refuse, tmp_path):
        write_released(random_checkpoint(sizes_of(clip_folder), with_mappers=True), tmp_path / "stage2")
        shutil.copytree(pipeline_folder, tmp_path / "diffusion")
        shutil.rmtree(tmp_path / "diffusion" / "unet")
        refuse(tmp_path / "stage2", r"lacks unet/config\.json", f"diffusion.model={tmp_path / 'diffusion'}")


@pytest.mark.slow
def test_real_size_needs_neither_clips_weights_nor_a_diffusion_model(tmp_path):
    """The preset as it is: ViT-B/32, 151 million parameters."""
    sizes = Sizes(768, 12, 32, 224, 512, 512, 12, 49408, 77, 32, 768)
    sections = random_checkpoint(sizes)
    write_released(sections, tmp_path / "best.pth")
    settings = load_config(None, ["preset=vit_b32_sd15_released"])
    report = import_checkpoint(tmp_path / "best.pth", settings, str(tmp_path / "model"), names=NAMES)
    assert report.taken == 190  # two scales more are settings of the model
    net = load_model_folder(tmp_path / "model").net
    check_same(net, sections, torch.randn(1, 3, 224, 224), layers=12)
    assert net.scenes.embeddings.shape == (2, 512)
