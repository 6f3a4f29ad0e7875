"""Settings: presets, overrides and the one line that a mistake gets."""

import shlex

import pytest
from pydantic import ValidationError

from uniemo_ray.config import Config, FilterConfig
from uniemo_ray.settings_file import load_config


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_file_over_preset_over_defaults(tmp_path):
    config = load_config(
        write(tmp_path, "preset: tiny\nstage1: {epochs: 3}\n"), ["stage1.batch_size=32", "seed=7"]
    )
    assert (config.stage1.epochs, config.stage1.batch_size, config.seed) == (3, 32, 7)
    assert config.encoder.query_length == 8  # from the preset
    assert config.losses.temperature == 0.07  # default


@pytest.mark.parametrize("name", ["demo", "sketch", "baselines", "emoset", "paper"])
def test_shipped_configs_are_valid(name):
    by_path, by_name = load_config(f"jobs/configs/{name}.yaml", []), load_config(name, [])
    assert by_path == by_name
    assert by_path.run == f"runs/{name}"
    other = ["preset=vit_b32_sd15"]
    assert load_config(f"jobs/configs/{name}.yaml", other) == load_config(name, other)


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        ("stage1: {epoch: 3}", None, ["stage1.epoch", "unknown setting"]),
        ("preset: nope", None, ["there is no preset 'nope'", "tiny"]),
        ("- a", None, ["must hold a mapping"]),
        ("a: [", None, ["no valid YAML"]),
        ("", "filter.eta=90", ["filter", "eta must be below filter.delta", "90"]),
        ("", "generation.threads=3", ["generation", "micro_batch 8 does not split over 3", "use a multiple"]),
        ("", "stage1.batch_size=1", ["stage1.batch_size 1 is", "one pass of 1 images for each of 2 workers"]),
        ("", "stage1.micro_batch=65", ["stage1.batch_size 128", "pass of 65 images", "stage1.micro_batch"]),
        ("", "data.kind=emoset", ["data.root is empty"]),
        ("", "data.kind=twitter1", ["data.root is empty", "twitter1"]),
        ("", "data={kind: fi, root: x, labels: ekman}", ["data.labels", "'folders'", "'fi'"]),
        ("", "data={kind: twitter2, root: x, agreement: 5}", ["data.agreement", "'twitter1'", "'twitter2'"]),
        ("", "data.sketch_train=100", ["less than one batch"]),
        ("", "seed", ["--set expects a.b=value"]),
        ("", "filter.criteria=[emo,emo]", ["distinct"]),
        ("", "diffusion.size_px=60", ["diffusion.size_px", "60"]),
        ("", "diffusion.prompt=an image", ["diffusion.prompt 'an image' has no <emotion>"]),
    ],
)
def test_a_mistake_gets_one_line_that_names_it(tmp_path, text, override, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        load_config(write(tmp_path, text), [override] if override else [])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "text",
    [
        "@data",
        "*<emotion>*",
        "%date",
        "`date`",
        "\tx",
        "!x y",
        "&a b",
        "|x",
        "> x",
        "a #b",
        "#a",
        "a: b: c",
        "C: drive",
        "2024-01-01",
        "---",
        "- a",
        "? x",
        "a\tb: [",
        "😀 {x}",
        "x, [y",
    ],
)
def test_text_on_the_command_line_is_that_text(text):
    config = load_config(None, [f"run={text}", f"diffusion.prompt={text} <emotion>"])
    assert config.run == text.strip()
    assert config.diffusion.prompt == f"{text} <emotion>".strip()


@pytest.mark.parametrize(
    "text", ['"<emotion> room', "'<emotion> room", "[<emotion>", "{<emotion>", '"a" <emotion>']
)
def test_text_that_begins_as_yaml_is_shown_with_its_quotes(text):
    with pytest.raises(ValueError, match=r"^--set diffusion\.prompt: ") as caught:
        load_config(None, [f"diffusion.prompt={text}"])
    message = str(caught.value)
    assert "\n" not in message
    assert repr(text) in message
    (given,) = shlex.split(message.rpartition("--set ")[2])  # what it tells to type
    assert load_config(None, [given]).diffusion.prompt == text


def test_numbers_flags_lists_and_mappings_stay_yaml():
    given = [
        "seed=7",
        "losses.temperature=0.05",
        "stage1=epochs: 3",
        "stage2={epochs: 2}",
        "filter.criteria=[emo]",
    ]
    config = load_config(None, [*given, "diffusion.revision=null", "data.root=", 'run="a: b"'])
    assert (config.seed, config.stage1.epochs, config.stage2.epochs) == (7, 3, 2)
    assert (config.filter.criteria, config.diffusion.revision, config.run) == (("emo",), None, "a: b")
    assert config.data.root is None


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"run: caf\xe9")
    with pytest.raises(ValueError, match=r"run\.yaml is no valid YAML"):
        load_config(str(tmp_path / "run.yaml"), [])


def test_missing_file():
    with pytest.raises(ValueError, match=r"nowhere\.yaml does not exist"):
        load_config("nowhere.yaml", [])


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        FilterConfig().eta = 3


def test_round_trip():
    config = load_config(None, ["filter.scope=per_emotion"])
    assert Config.model_validate(config.model_dump(mode="json")) == config


SIZES = ("vit_b32_sd15", "vit_b16_sd15", "vit_l14_sd15", "vit_l14_sdxl")


@pytest.mark.parametrize("name", SIZES)
def test_full_size_presets_hold_the_papers_values(name):
    config = load_config(None, [f"preset={name}"])
    encoder, losses = config.encoder, config.losses
    assert encoder.clip.endswith("-quickgelu")
    assert (encoder.query_length, encoder.interactive_layers) == (32, 2)
    assert (encoder.interactive_context, encoder.interactive_residual) == ("patches", "beta")
    assert (losses.scene_weight, losses.object_weight, losses.class_weight) == (0.25, 0.25, 0.5)
    assert (losses.understanding_weight, losses.condition_weight, losses.diffusion_weight) == (0.3, 0.3, 0.4)
    assert losses.same_attribute_negatives
    assert (config.stage1.batch_size, config.stage1.weight_decay) == (128, 1e-3)
    assert {config.stage1.rates.tower, config.stage1.rates.queries, config.stage1.rates.heads} == {1e-4}
    assert (config.stage2.rates.queries, config.stage2.rates.fusion) == (1e-2, 1e-2)
    assert (config.filter.eta, config.filter.delta) == (20, 80)
    assert config.feedback.synthetic_fraction == 0.2
    diffusion = config.diffusion
    assert (diffusion.steps, diffusion.guidance, diffusion.scheduler) == (50, 7.5, "unipc")
    assert len(diffusion.revision) == 40


@pytest.mark.parametrize("name", SIZES)
def test_released_presets_differ_only_where_the_released_code_does(name):
    paper, released = (load_config(None, [f"preset={name}{end}"]) for end in ("", "_released"))
    encoder = released.encoder
    assert (encoder.interactive_layers, encoder.interactive_context) == (1, "tokens")
    assert encoder.interactive_residual == "replace"
    assert (paper.encoder.preprocess, encoder.preprocess) == ("clip", "imagenet")
    assert (released.losses.scene_weight, released.losses.class_weight) == (0.05, 0.9)
    assert (released.losses.scene_temperature, released.losses.temperature) == (0.01, 0.07)
    assert not released.losses.learn_temperature
    assert released.losses.is_symmetric
    assert (released.stage1.rates.tower, released.stage1.rates.queries) == (8e-6, 5e-4)
    assert (released.stage1.weight_decay, released.stage1.tower_weight_decay) == (1e-2, 1e-3)
    assert released.stage2.rates.fusion == 1e-3
    assert released.encoder.clip == paper.encoder.clip
    assert (paper.fusion.start, released.fusion.start) == ("words", "plain")
    # conditions as wide as the names of CLIP, which the released code compares
    match = "mapped" if name == "vit_l14_sd15" else "projected"
    head = "own" if name == "vit_l14_sdxl" else "classifier"
    expected = {"start": "plain", "match": match, "condition_head": head}
    assert released.fusion == paper.fusion.model_copy(update=expected)
    for section in ("diffusion", "filter", "feedback", "generation", "data"):
        assert getattr(released, section) == getattr(paper, section)


def test_diffusion_models_of_the_presets():
    sd, xl = (load_config(None, [f"preset={name}"]).diffusion for name in ("vit_l14_sd15", "vit_l14_sdxl"))
    assert (sd.model, sd.text_widths, sd.size_px) == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        (768,),
        512,
    )
    assert (xl.model, xl.text_widths, xl.size_px) == (
        "stabilityai/stable-diffusion-xl-base-1.0",
        (768, 1280),
        1024,
    )


def test_presets_merge_from_left_to_right_under_the_file(tmp_path):
    text = "preset: [vit_b32_sd15, tiny]\nstage1: {epochs: 3}\n"
    config = load_config(write(tmp_path, text), ["stage1.warmup_steps=5"])
    assert config.encoder.clip == "tiny"  # of the later preset
    assert config.encoder.interactive_layers == 2  # of the earlier one
    assert (config.stage1.epochs, config.stage1.warmup_steps) == (3, 5)


def test_a_preset_can_be_chosen_over_the_files(tmp_path):
    path = write(tmp_path, "preset: vit_b32_sd15\nstage1: {epochs: 3}\n")
    config = load_config(path, ["preset=vit_l14_sd15"])
    assert (config.encoder.clip, config.stage1.epochs) == ("ViT-L-14-quickgelu", 3)
