"""CLIPs in the wild: read as they were trained, or refused with the reason."""

import json
import shutil

import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file, save_file

from uniemo_ray.config import EncoderConfig
from uniemo_ray.loop.preflight import check_clip
from uniemo_ray.models.clip import (
    CONFIG_FILE,
    TINY_FOLDER,
    WEIGHTS_FILE,
    find_clip_config,
    load_clip,
    make_clip,
)
from uniemo_ray.models.clip_kinds import refusal

CLIP_VOCABULARY = 49408
REASONS = (
    "custom text tower",
    "goes through the tokenizer",
    "go through the tokenizer",
    "timm's",
    "ResNet",
)


def small(config):
    """The same kind of model with narrow towers, so that all names can be built."""
    vision = config["vision_cfg"] | {"layers": 1, "width": 64, "head_width": 32, "image_size": 28}
    vision["patch_size"] = 14
    return config | {
        "vision_cfg": vision,
        "text_cfg": config["text_cfg"] | {"layers": 1, "width": 32, "heads": 1},
    }


@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_name_of_open_clip_is_supported_or_refused_with_the_reason(name):
    config = open_clip.get_model_config(name)
    why = refusal(config)
    if why:
        assert any(words in why for words in REASONS), why
        with pytest.raises(ValueError, match="choose an OpenAI-style ViT model") as error:
            find_clip_config(name)
        assert str(error.value).startswith(f"encoder.clip {name!r}: ")
        return
    assert find_clip_config(name)[1] is None
    with torch.device("meta"):
        model = make_clip(small(config))
    assert type(model.visual) is VisionTransformer
    assert model.token_embedding.weight.shape[0] == CLIP_VOCABULARY


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-H-14-worldwide", "the tokenizer 'facebook/xlm-v-base'"),
        ("ViT-L-14-CLIPA", "the tokenizer 'bert-base-uncased'"),
        ("ViT-B-16-SigLIP", "custom text tower"),
        ("RN50", "ResNet"),
        ("convnext_base", "timm's convnext_base"),
    ],
)
def test_a_run_refuses_them_before_it_starts(name, words):
    with pytest.raises(ValueError, match=words):
        check_clip(EncoderConfig(clip=name, clip_pretrained="laion2b"))


def test_models_that_are_read_stay_supported():
    for name in (
        "ViT-B-32",
        "ViT-B-16",
        "ViT-L-14",
        "ViT-L-14-336",
        "ViT-H-14",
        "ViT-bigG-14",
        "ViT-B-32-quickgelu",
    ):
        assert refusal(open_clip.get_model_config(name)) is None


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny CLIP, to be changed."""
    for name in (CONFIG_FILE, WEIGHTS_FILE, "merges.txt.gz"):
        (tmp_path / name).write_bytes((TINY_FOLDER / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2},
            "'facebook/xlm-v-base'",
        ),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, "settings of its own"),
        ({"pool_type": "last"}, "pools by 'last'"),
    ],
)
def test_a_folder_with_another_tokenizer_is_refused(folder, facts, words):
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"] |= facts
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    for take in (load_clip, find_clip_config):
        with pytest.raises(ValueError, match=words) as error:
            take(str(folder))
        assert "\n" not in str(error.value)


def test_weights_of_openai_need_their_activation(folder):
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["quick_gelu"] = False
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    state = load_file(folder / WEIGHTS_FILE)
    save_file(state | {"input_resolution": torch.tensor(32)}, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="trained with QuickGELU: choose the model's name with -quickgelu"):
        load_clip(str(folder))


def test_a_torchscript_archive_is_refused_by_name(tmp_path):
    archive = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), archive)
    for take in (
        lambda: load_clip("ViT-B-32", pretrained=str(archive)),
        lambda: check_clip(EncoderConfig(clip="ViT-B-32", clip_pretrained=str(archive))),
    ):
        with pytest.raises(ValueError, match="is a TorchScript archive, which is a program") as error:
            take()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "is_told"), [("ViT-B-32", True), ("ViT-B-32-quickgelu", False)])
def test_a_file_that_may_need_another_activation_is_told(tmp_path, caplog, name, is_told):
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_clip(name, pretrained=str(tmp_path / "weights.pt"))
    assert ("need ViT-B-32-quickgelu" in caplog.text) == is_told


WRAPPED = ("_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod.")


@pytest.mark.parametrize("prefix", WRAPPED)
def test_names_of_compiled_and_parallel_training_are_those_of_the_model(prefix, tmp_path):
    plain, state = load_clip("tiny"), load_file(TINY_FOLDER / WEIGHTS_FILE)
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "clip")
    save_file({f"{prefix}{name}": value for name, value in state.items()}, folder / WEIGHTS_FILE)
    loaded = load_clip(str(folder)).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.model.state_dict().items())


def test_a_compiled_image_tower_alone_is_read_too(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "clip")
    state = load_file(TINY_FOLDER / WEIGHTS_FILE)
    save_file(
        {name.replace("visual.", "visual._orig_mod."): value for name, value in state.items()},
        folder / WEIGHTS_FILE,
    )
    loaded = load_clip(str(folder)).model.visual.conv1.weight
    assert torch.equal(loaded, load_clip("tiny").model.visual.conv1.weight)


def test_a_checkpoint_of_compiled_training_is_read_as_the_plain_one(tmp_path):
    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-32").state_dict()
    torch.save(state, tmp_path / "plain.pt")
    wrapped = {f"module._orig_mod.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, tmp_path / "epoch_3.pt")
    plain, compiled = (
        load_clip("ViT-B-32", pretrained=str(tmp_path / n)) for n in ("plain.pt", "epoch_3.pt")
    )
    assert compiled.config == plain.config
    assert (compiled.mean, compiled.std) == (plain.mean, plain.std)
    found = compiled.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in plain.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B/32", "do you mean ViT-B-32"),
        ("vit-l-14", "do you mean ViT-L-14"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "names with a colon are not taken"),
        ("local-dir:/models/clip", "a folder goes without"),
        (str(TINY_FOLDER / WEIGHTS_FILE), r"which is a file: .* in encoder\.clip_pretrained"),
    ],
)
def test_names_that_nearly_fit_say_what_is_meant(name, words):
    with pytest.raises(ValueError, match=words) as error:
        find_clip_config(name, pretrained="openai")
    assert "\n" not in str(error.value)


def test_a_folder_of_transformers_is_told_from_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match=rf"has no {CONFIG_FILE}: expected"):
        find_clip_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match=r"its files are those of transformers: expected .*`uniemo fetch`"):
        find_clip_config(str(tmp_path))
