"""What is refused before Ray starts."""

import json

import pytest

from tests.data import layouts
from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.config import DataConfig
from uniemo_ray.loop.preflight import check_data, check_inputs, check_understanding, count_layers
from uniemo_ray.settings_file import load_config


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
        ("encoder.clip=ViT-Z-9", r"unknown CLIP 'ViT-Z-9' \(encoder\.clip\)"),
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
        ("diffusion.text_widths=[768]", r"text_widths is \(768,\), but .* has text encoders of \(16,\)"),
        ("diffusion.prompt=an image", "has no <emotion>"),
        ("fusion.match=mapped", "conditions are 16 wide and CLIP's names 12: take a CLIP and a diffusion"),
    ],
)
def test_wrong_models_are_named(folders, override, words):
    with pytest.raises(ValueError, match=words):
        check_inputs(config(folders, override))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.plain_per_emotion=1"], r"evaluation\.plain_per_emotion is 1, but LPIPS and Sem-D"),
        (["generation.per_emotion=1"], r"generation\.per_emotion is 1, but LPIPS and Sem-D compare two"),
        (["encoder.queries=none", "fusion.members=[scene]"], r"fusion\.members \['scene'\] all need queries"),
        (["fusion.condition_head=classifier"], r"reads 768 values, but conditions have 16: set fusion\.cond"),
        (
            ["fusion.joint_training=false", "stage2.rates={fusion: 0, heads: 0}"],
            r"stage 2 has nothing to train: .* stage2\.rates of 0 freeze the rest",
        ),
        (
            ["encoder.tower=frozen", "stage1.rates={queries: 0, heads: 0}"],
            "stage 1 has nothing to train: encoder.tower is 'frozen'",
        ),
    ],
)
def test_settings_that_cannot_end_well_are_refused_at_the_start(folders, overrides, words):
    with pytest.raises(ValueError, match=words) as error:
        check_inputs(config(folders, *overrides))
    assert "\n" not in str(error.value)


def test_stage_one_alone_needs_no_stage_two(folders):
    check_understanding(config(folders, "fusion.joint_training=false", "stage2.rates={fusion: 0, heads: 0}"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["pt_inception-2015-12-05-6726825d.pth"], "is damaged: its sha256 starts with e3b0c442"),
        (["alexnet-owt-7be5be79.pth"], "is damaged: its sha256 starts with e3b0c442, expected 7be5be79"),
        (["time_2023-11-12_03-29-best.pth"], r"time_2023-11-12_03-29-best\.pth is damaged"),
        (["resnet50_places365.pth.tar", "resnet50-0676ba61.pth"], r"places365\.pth\.tar is damaged"),
        (["resnet50_places365.pth.tar"], r"holds resnet50_places365\.pth\.tar but no resnet50-0676ba61"),
        (["alexnet-owt-4df8aa71.pth"], r"holds alexnet-owt-4df8aa71\.pth, .* put this file there"),
        (
            ["resnet50_places365.pth.tar", "resnet50-11ad3fa6.pth"],
            r"holds resnet50-11ad3fa6\.pth, .*of resnet50-0676ba61",
        ),
    ],
)
def test_published_files_are_read_before_anything_starts(folders, tmp_path, files, words):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=words) as error:
        check_inputs(config(folders, f"evaluation.weights_dir={tmp_path}"))
    assert "\n" not in str(error.value)


def test_pictures_too_small_for_alexnet_are_refused_before_anything_starts(folders, tmp_path, monkeypatch):
    weights = f"evaluation.weights_dir={tmp_path}"
    (tmp_path / "alexnet-owt-7be5be79.pth").touch()
    monkeypatch.setattr("uniemo_ray.loop.preflight.check_published", lambda folder: None)
    for size in (16, 24):
        with pytest.raises(ValueError, match=rf"diffusion\.size_px is {size}, but LPIPS by alexnet-owt"):
            check_inputs(config(folders, weights, f"diffusion.size_px={size}"))
    check_inputs(config(folders, weights, "diffusion.size_px=32"))
    (tmp_path / "alexnet-owt-7be5be79.pth").unlink()
    check_inputs(config(folders, weights, "diffusion.size_px=16"))


def test_missing_data_folder_is_named(folders, tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        check_inputs(config(folders, "data={kind: emoset, root: " + str(tmp_path / "nothing-here") + "}"))


def test_open_clip_names_are_known(folders):
    assert count_layers(config(folders, "encoder.clip=ViT-B-32").encoder) == 12


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("kind: fi", r"no scenes and objects.* set filter.criteria=\[emo\]"),
        ("kind: twitter2", r"no scenes and objects.* set filter.criteria=\[emo\]"),
        ("kind: folders, labels: [calm, tense]", r"no scenes and objects.* set filter.criteria=\[emo\]"),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_refused_in_one_line(folders, tmp_path, data, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_inputs(config(folders, f"data={{{data}, root: {tmp_path}}}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (layouts.emotionroi, "kind: emotionroi"),
        (layouts.twitter2, "kind: twitter2"),
        (
            lambda root: layouts.class_folders(root, ["Calm", "tense"], 8),
            "kind: folders, labels: [calm, tense]",
        ),
        (layouts.fi, "kind: fi, valence: true"),
    ],
)
def test_every_label_space_is_trainable(folders, tmp_path, make, data):
    make(tmp_path / "set")
    check_inputs(config(folders, f"data={{{data}, root: {tmp_path}/set}}", "filter.criteria=[emo]"))


def test_a_label_that_the_text_tower_would_cut_is_refused(folders):
    classes = "sketch_classes: {calm: [awe], a_very_long_name_for_a_mood_that_nobody_reads: [fear]}"
    labels = "labels: [calm, a_very_long_name_for_a_mood_that_nobody_reads]"
    with pytest.raises(
        ValueError, match=r"the label 'a_very_long.* is too long: with it the prompt"
    ) as caught:
        check_inputs(config(folders, f"data={{{labels}, {classes}}}"))
    assert "\n" not in str(caught.value)


def test_fi_is_trainable_without_the_semantic_criterion(folders, tmp_path):
    set_ = f"data={{kind: fi, root: {layouts.fi(tmp_path, 3)}}}"
    check_inputs(config(folders, set_, "filter.criteria=[emo]"))
    check_inputs(config(folders, set_, "feedback.rounds=0"))


def test_ingest_checks_the_folder_alone(tmp_path):
    check_data(DataConfig())
    check_data(DataConfig(kind="twitter2", root=str(layouts.twitter2(tmp_path))))
    with pytest.raises(ValueError, match="no such folder"):
        check_data(DataConfig(kind="twitter2", root=str(tmp_path / "no")))
