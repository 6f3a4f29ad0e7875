"""Settings: presets, overrides and the one line that a mistake gets."""

import pytest
from pydantic import ValidationError

from uniemo_ray.config import Config, FilterConfig, load_config


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


@pytest.mark.parametrize("name", ["demo", "sketch", "emoset"])
def test_shipped_configs_are_valid(name):
    assert load_config(f"jobs/configs/{name}.yaml", []).run == f"runs/{name}"


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        ("stage1: {epoch: 3}", None, ["stage1.epoch", "unknown setting"]),
        ("preset: nope", None, ["unknown preset 'nope'", "tiny"]),
        ("- a", None, ["must hold a mapping"]),
        ("a: [", None, ["no valid YAML"]),
        ("", "filter.eta=90", ["filter", "eta must be below filter.delta", "90"]),
        ("", "stage1.batch_size=63", ["stage1.batch_size 63", "multiple of 2"]),
        ("", "data.kind=emoset", ["data.root is empty"]),
        ("", "data.kind=twitter1", ["data.root is empty", "twitter1"]),
        ("", "data={kind: fi, root: x, labels: ekman}", ["data.labels", "'folders'", "'fi'"]),
        ("", "data={kind: twitter2, root: x, agreement: 5}", ["data.agreement", "'twitter1'", "'twitter2'"]),
        ("", "data.sketch_train=100", ["less than one batch"]),
        ("", "seed", ["--set expects a.b=value"]),
        ("", "filter.criteria=[emo,emo]", ["distinct"]),
        ("", "diffusion.size_px=60", ["diffusion.size_px", "60"]),
    ],
)
def test_a_mistake_gets_one_line_that_names_it(tmp_path, text, override, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        load_config(write(tmp_path, text), [override] if override else [])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_missing_file():
    with pytest.raises(ValueError, match=r"nowhere\.yaml does not exist"):
        load_config("nowhere.yaml", [])


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        FilterConfig().eta = 3


def test_round_trip():
    config = load_config(None, ["filter.scope=per_emotion"])
    assert Config.model_validate(config.model_dump(mode="json")) == config
