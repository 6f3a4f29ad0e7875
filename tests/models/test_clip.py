import json
import pickle
import re

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.models.tiny import JOINT, clip_config, pictures, write_clip_folder
from uniemo_ray.models.clip import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    embed_names,
    find_clip_config,
    image_features,
    load_clip,
    make_clip,
    read_clip_config,
)


def test_loads_what_open_clip_itself_loads(clip_folder):
    clip = load_clip(str(clip_folder))
    theirs = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    with torch.no_grad():
        assert torch.equal(image_features(clip, pictures()), theirs.encode_image(pictures()))
    assert clip.image_size_px == 32
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert not clip.model.training
    assert not any(p.requires_grad for p in clip.model.parameters())


def test_names_are_normalised_and_read_without_underscores(clip):
    rows = embed_names(clip, ["amusement_park", "beach", "amusement park"])
    assert rows.shape == (3, JOINT)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(rows[0], rows[2])
    assert not torch.allclose(rows[0], rows[1])
    expected = clip.model.encode_text(clip.tokenizer(["beach"]), normalize=True)
    torch.testing.assert_close(rows[1:2], expected)
    assert embed_names(clip, []).shape == (0, JOINT)


def test_many_names_equal_one_by_one(clip):
    names = [f"lion {'and lion ' * (i % 4)}boat" for i in range(300)]
    rows = embed_names(clip, names)
    assert rows.shape == (300, JOINT)
    torch.testing.assert_close(rows[299:], embed_names(clip, names[299:]), atol=1e-6, rtol=1e-5)


def test_own_vocabulary_is_used(clip):
    ids = clip.tokenizer(["lion"])
    assert ids.shape == (1, 16)
    assert ids.max() < 1000  # open_clip's own vocabulary ends near 49,000


def test_saved_config_rebuilds_the_architecture(clip, tmp_path):
    write_clip_folder(clip, tmp_path / "clip")
    assert not (tmp_path / "clip" / WEIGHTS_FILE).exists()
    model = make_clip(read_clip_config(tmp_path / "clip")["model_cfg"])
    model.load_state_dict(clip.model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.encode_image(pictures()), image_features(clip, pictures()))


def test_saved_weights_load_again(clip, tmp_path):
    write_clip_folder(clip, tmp_path, with_weights=True)
    again = load_clip(str(tmp_path))
    assert torch.equal(image_features(again, pictures()), image_features(clip, pictures()))
    assert torch.equal(embed_names(again, ["skull"]), embed_names(clip, ["skull"]))


def test_parts_travel_between_processes(clip):
    again = pickle.loads(pickle.dumps(clip))
    assert torch.equal(embed_names(again, ["skull"]), embed_names(clip, ["skull"]))


def test_bad_folders_and_names_are_explained(clip, tmp_path):
    with pytest.raises(ValueError, match=f"no {CONFIG_FILE}"):
        load_clip(str(tmp_path))
    write_clip_folder(clip, tmp_path)
    with pytest.raises(ValueError, match=f"no {WEIGHTS_FILE}"):
        load_clip(str(tmp_path))
    write_clip_folder(clip, tmp_path, with_weights=True)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({}))
    with pytest.raises(ValueError, match="'model_cfg'"):
        load_clip(str(tmp_path))
    (tmp_path / CONFIG_FILE).unlink()
    with pytest.raises(ValueError, match=f"no {CONFIG_FILE}"):
        load_clip(str(tmp_path))
    with pytest.raises(ValueError, match="unknown CLIP 'ViT-Z'"):
        load_clip("ViT-Z", pretrained="openai")
    with pytest.raises(ValueError, match=r"encoder\.clip_pretrained"):
        load_clip("ViT-B-32")
    with pytest.raises(ValueError, match=r"leave encoder\.clip_pretrained empty"):
        load_clip(str(tmp_path), pretrained="openai")


def test_a_model_name_takes_its_weights_from_a_file(tmp_path):
    """As a user has them who names an open_clip model and a downloaded file."""
    name, config = "uniemo-small", clip_config(vocabulary=49408)
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(3)
    saved = make_clip(config).state_dict()
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in saved.items()}, file)
    loaded = load_clip(name, pretrained=str(file))
    state = loaded.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in saved.items())
    assert loaded.config["model_cfg"]["vision_cfg"]["width"] == 16
    assert loaded.image_size_px == 32
    assert not any(p.requires_grad for p in loaded.model.parameters())
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-9])
    refused(name, pretrained=str(tmp_path / "short.safetensors"))


def test_missing_weight_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        load_clip("ViT-B-32", pretrained=str(tmp_path / "nowhere.pt"))
    assert "\n" not in str(error.value)


def test_other_text_towers_are_refused():
    with pytest.raises(ValueError, match="custom text tower"):
        make_clip(clip_config() | {"custom_text": True})


def refused(name, **options):
    with pytest.raises(ValueError, match=r"cannot be loaded .*expected a whole weight file") as error:
        load_clip(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tag_that_cannot_be_reached_is_one_line():
    assert "'openai'" in refused("ViT-B-32-quickgelu", pretrained="openai")


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_weights_are_one_line(clip, tmp_path, share):
    write_clip_folder(clip, tmp_path, with_weights=True)
    data = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(data[: int(share * len(data))])
    refused(str(tmp_path))


def test_weights_of_another_architecture_name_the_tensor_and_both_shapes(clip, tmp_path):
    write_clip_folder(clip, tmp_path, with_weights=True)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 24
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    message = refused(str(tmp_path))
    assert re.search(r"visual\.\S+ has shape \[.*16.*\], expected \[.*24.*\]", message), message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("tower", "key", "value", "words"),
    [
        (
            "vision_cfg",
            "image_size",
            48,
            r"visual\.positional_embedding has shape \[17, 16\], expected \[37, 16\]",
        ),
        ("text_cfg", "context_length", 20, r" positional_embedding has shape \[16, 8\], expected \[20, 8\]"),
    ],
)
def test_weights_of_another_resolution_are_not_interpolated(clip, tmp_path, tower, key, value, words):
    write_clip_folder(clip, tmp_path, with_weights=True)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["model_cfg"][tower][key] = value
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    assert re.search(words, refused(str(tmp_path)))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_file_of_another_resolution_is_not_interpolated(tmp_path, ending):
    name, config = "uniemo-larger", clip_config(vocabulary=49408)
    file = tmp_path / f"weights.{ending}"
    state = {key: value.contiguous() for key, value in make_clip(config).state_dict().items()}
    if ending == "pt":
        torch.save(state, file)
    else:
        save_file(state, file)
    config["vision_cfg"]["image_size"] = 48
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    assert "visual.positional_embedding has shape [17, 16], expected [37, 16]" in refused(
        name, pretrained=str(file)
    )


def test_the_architecture_is_known_without_weights(clip_folder):
    config, folder = find_clip_config(str(clip_folder))
    assert folder == clip_folder
    assert config["model_cfg"]["vision_cfg"]["width"] == 16
    config, folder = find_clip_config("ViT-L-14", pretrained="openai")
    assert folder is None
    assert config["model_cfg"]["quick_gelu"]
    assert not find_clip_config("ViT-L-14", pretrained="laion2b_s32b_b82k")[0]["model_cfg"]["quick_gelu"]
