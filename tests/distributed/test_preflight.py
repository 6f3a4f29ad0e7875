"""What is refused before Ray starts."""

import json

import pytest

from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.config import load_config
from uniemo_ray.distributed.preflight import check_inputs, count_layers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_clip(folder / "clip")
    write_pipeline(folder / "diffusion")
    return folder


def config(folders, *overrides):
    models = [f"encoder.clip={folders}/clip", f"diffusion.model={folders}/diffusion"]
    return load_config(None, [*models, *overrides])


def test_good_folders_pass(folders):
    check_inputs(config(folders))
    layers = json.loads((folders / "clip" / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"][
        "layers"
    ]
    assert count_layers(config(folders).encoder) == layers


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("encoder.clip=ViT-Z-9", "encoder.clip 'ViT-Z-9' is neither"),
        ("encoder.stage_layers=[2, 99]", "does not cut"),
        (
            "encoder={clip: ViT-B-32, clip_pretrained: /no.pt}",
            "'/no.pt': for ViT-B-32 expected a weight file",
        ),
        (
            "encoder={clip: ViT-L-14-quickgelu}",
            "None: for ViT-L-14-quickgelu expected a weight file or one of openai",
        ),
        ("encoder.clip_pretrained=openai", "brings its own weights: leave encoder.clip_pretrained empty"),
        ("diffusion.model=someone/some-model", "from the hub it cannot be had: download it"),
        ("evaluation.weights_dir=/nowhere", "holds neither pt_inception-2015-12-05-"),
        ("diffusion.model=/nowhere", "diffusion.model '/nowhere': /nowhere/model_index.json is missing"),
    ],
)
def test_wrong_models_are_named(folders, override, words):
    with pytest.raises(ValueError, match=words):
        check_inputs(config(folders, override))


def test_missing_data_folder_is_named(folders, tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        check_inputs(config(folders, "data={kind: emoset, root: " + str(tmp_path / "nothing-here") + "}"))


def test_open_clip_names_are_known(folders):
    assert count_layers(config(folders, "encoder.clip=ViT-B-32").encoder) == 12
