"""Pipelines on disk: what is found, and what is missing by name."""

import contextlib
import json
import shutil

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from tests.models.tiny import XL_WIDTHS
from uniemo_ray.config import DiffusionConfig
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.models.pipeline_folder import check_text_widths, find_pipeline

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(pipeline_folder, tmp_path):
    return shutil.copytree(pipeline_folder, tmp_path / "copy")


@pytest.fixture
def xl_copy(xl_folder, tmp_path):
    return shutil.copytree(xl_folder, tmp_path / "xl")


def rename_to_variant(folder, variant="fp16"):
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))


def test_kind_and_widths_come_from_the_folder(pipeline_folder, xl_folder):
    plain, xl = find_pipeline(str(pipeline_folder)), find_pipeline(str(xl_folder))
    assert (plain.is_xl, plain.text_widths, plain.is_empty_zero) == (False, (16,), False)
    assert (xl.is_xl, xl.text_widths, xl.is_empty_zero) == (True, XL_WIDTHS, True)
    assert find_pipeline("tiny").path.is_dir()


def test_its_files_are_all_that_is_needed(xl_folder, tmp_path):
    folder = find_pipeline(str(xl_folder))
    (tmp_path / "other").mkdir()
    for name in folder.files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(xl_folder / name, tmp_path / name)
    assert not any("words" in name for name in folder.files)  # something else lies in the folder, too
    again = load_diffusion(str(tmp_path))
    assert again.text_widths == XL_WIDTHS


def test_a_variant_is_read_by_name(copy):
    plain = load_diffusion(str(copy)).denoiser.conv_in.weight
    shutil.copytree(copy, copy.parent / "both")
    rename_to_variant(copy)
    with pytest.raises(ValueError, match=r"lacks vae/diffusion_pytorch_model\.safetensors"):
        find_pipeline(str(copy))
    halves = load_file(copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file(
        {k: v.half() for k, v in halves.items()}, copy / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    parts = load_diffusion(str(copy), variant="fp16")
    assert parts.denoiser.dtype == torch.float32
    assert torch.equal(parts.denoiser.conv_in.weight, plain.half().float())
    assert all("fp16" in name for name in parts.folder.files if name.endswith(".safetensors"))
    with pytest.raises(
        ValueError, match=r"lacks vae/diffusion_pytorch_model\.bf16\.safetensors.*diffusion\.variant=fp16"
    ):
        find_pipeline(str(copy), variant="bf16")


def test_a_hub_id_is_taken_from_the_cache(pipeline_folder, tmp_path, monkeypatch):
    """The cache's own layout: a snapshot folder per commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--some-model"
    shutil.copytree(pipeline_folder, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = find_pipeline("someone/some-model", revision=commit)
    assert found.path == repository / "snapshots" / commit
    with pytest.raises(ValueError, match=r"at revision fedcba.*set diffusion\.model to its folder") as error:
        find_pipeline("someone/some-model", revision="fedcba9876543210fedcba9876543210fedcba98")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        UNET,
        "vae/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer_2/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(xl_copy, name):
    (xl_copy / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}: copy the whole folder") as error:
        load_diffusion(str(xl_copy))
    assert "\n" not in str(error.value)


def test_other_weight_formats_do_not_count(copy):
    (copy / UNET).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=f"lacks {UNET}.*with safetensors"):
        load_diffusion(str(copy))


@pytest.mark.parametrize("part", ["unet", "tokenizer_2"])
def test_a_part_that_the_index_lacks_is_named(xl_copy, part):
    index = json.loads((xl_copy / "model_index.json").read_text())
    index[part] = [None, None]
    (xl_copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"has no {part}: .* lists scheduler"):
        load_diffusion(str(xl_copy))


def test_damaged_weights_are_one_line(copy):
    data = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="unet cannot be loaded") as error:
        load_diffusion(str(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [UNET, "text_encoder/model.safetensors"])
def test_weights_that_lack_a_tensor_are_refused(copy, name):
    """The libraries would fill the gap with random numbers."""
    weights = load_file(copy / name)
    lost = max(weights)
    save_file({k: v for k, v in weights.items() if k != lost}, copy / name)
    with pytest.raises(ValueError, match=r"lack \S+"):
        load_diffusion(str(copy))


@pytest.mark.parametrize("name", [UNET, "text_encoder/model.safetensors"])
def test_weights_of_another_shape_are_refused(copy, name):
    weights = load_file(copy / name)
    first = next(k for k, v in sorted(weights.items()) if v.ndim == 2)
    save_file(weights | {first: torch.zeros(3, 5)}, copy / name)
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        load_diffusion(str(copy))
    message = str(error.value)
    rows, columns = weights[first].shape
    assert first.rpartition("text_model.")[2] in message
    assert "[3, 5]" in message or "(3, 5)" in message
    assert f"[{rows}, {columns}]" in message or f"({rows}, {columns})" in message
    assert "\n" not in message


def test_something_else_is_no_pipeline(tmp_path):
    for name in (str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=r"model_index\.json is missing"):
            find_pipeline(name)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        find_pipeline(str(tmp_path))


def write_hub_vocabulary(folder, words, *, padding="<|endoftext|>"):
    for path in folder.iterdir():
        path.unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(words / name, folder / name)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": padding}
    special["unk_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"model_max_length": 16, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special))


def test_tokenizers_in_the_hubs_own_form(xl_copy, xl):
    """Vocabulary, merges and two settings files, without the one file that newer libraries write."""
    for part, padding in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        write_hub_vocabulary(xl_copy / part, xl_copy / "words" / "tokenizer", padding=padding)
    parts = load_diffusion(str(xl_copy))
    texts = ["a lion in a forest", "Toy, street!"]
    assert torch.equal(parts.text_states(texts).hidden, xl.text_states(texts).hidden)
    assert torch.equal(parts.text_states(texts).pooled, xl.text_states(texts).pooled)
    assert {"tokenizer_2/vocab.json", "tokenizer_2/merges.txt"} <= set(parts.folder.files)


@pytest.mark.parametrize(
    ("present", "lost"),
    [
        ((), "vocab.json"),
        (("vocab.json", "special_tokens_map.json"), "merges.txt"),
        (("merges.txt",), "vocab.json"),
    ],
)
def test_a_vocabulary_is_whole_or_named(xl_copy, present, lost):
    """transformers makes up one of two words."""
    folder = xl_copy / "tokenizer_2"
    write_hub_vocabulary(folder, xl_copy / "words" / "tokenizer")
    for path in folder.iterdir():
        if path.name not in (*present, "tokenizer_config.json"):
            path.unlink()
    with pytest.raises(ValueError, match=f"lacks tokenizer_2/{lost}: copy the whole folder"):
        find_pipeline(str(xl_copy))


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_a_truncated_vocabulary_names_folder_and_part(copy, name):
    folder = copy / "tokenizer"
    if name != "tokenizer.json":
        write_hub_vocabulary(folder, copy / "words" / "tokenizer")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"diffusion.model {copy}: tokenizer ") as error:
        load_diffusion(str(copy))
    assert "copy the folder again" in str(error.value)
    assert "\n" not in str(error.value)


def test_merges_that_are_cut_short_are_refused(copy):
    """transformers would read what is left, and cut the other words into pieces."""
    folder = copy / "tokenizer"
    write_hub_vocabulary(folder, copy / "words" / "tokenizer")
    load_diffusion(str(copy))
    lines = (folder / "merges.txt").read_text().splitlines(keepends=True)
    (folder / "merges.txt").write_text("".join(lines[:-3]))
    with pytest.raises(ValueError, match=r"merges of tokenizer never give 3 words .* copy the folder again"):
        load_diffusion(str(copy))


def test_a_vocabulary_of_another_encoder_is_refused(copy):
    """Its ids would name other words, or none."""
    path = copy / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    lost = max(content["model"]["merges"], key=lambda pair: content["model"]["vocab"]["".join(pair)])
    content["model"]["merges"].remove(lost)
    del content["model"]["vocab"]["".join(lost)]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer has a vocabulary of \d+, its text encoder one of \d+"):
        load_diffusion(str(copy))


def test_text_widths_are_those_of_the_model(xl_folder):
    check_text_widths(DiffusionConfig(model=str(xl_folder)))
    check_text_widths(DiffusionConfig(model=str(xl_folder), text_widths=XL_WIDTHS))
    with pytest.raises(ValueError, match=r"text_widths is \(16,\), but .* has text encoders of \(16, 24\)"):
        check_text_widths(DiffusionConfig(model=str(xl_folder), text_widths=(16,)))


def edit(file, **facts):
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_the_variant_that_is_whole_is_proposed(copy):
    rename_to_variant(copy)
    for asked, advice in ((None, "fp16"), ("bf16", "fp16")):
        with pytest.raises(
            ValueError, match=f"set diffusion.variant={advice}, which the folder holds whole"
        ) as error:
            find_pipeline(str(copy), variant=asked)
        assert "\n" not in str(error.value)
    assert find_pipeline(str(copy), variant="fp16").variant == "fp16"


def test_plain_weights_are_proposed_to_who_asks_for_a_variant(copy):
    with pytest.raises(ValueError, match=r"set diffusion\.variant=null, which"):
        find_pipeline(str(copy), variant="fp16")


def test_a_folder_of_two_halves_is_to_be_copied_whole(copy):
    rename_to_variant(copy / "unet")
    for asked, kind in ((None, "with safetensors"), ("fp16", "with the fp16 variant's safetensors")):
        with pytest.raises(ValueError, match=f"copy the whole folder, {kind}"):
            find_pipeline(str(copy), variant=asked)


@pytest.mark.parametrize(
    ("file", "facts", "words"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_schedule": None},
            "FlowMatchEulerDiscreteScheduler has no noise schedule in betas",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EDMEulerScheduler", "beta_start": None},
            "EDMEulerScheduler has no noise schedule",
        ),
        ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, "the beta_schedule 'laplace'"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "flow_prediction"},
            "predicts 'flow_prediction'",
        ),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "flow matching"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "LCMScheduler .* a few steps"),
        ("scheduler/scheduler_config.json", {"_class_name": "TCDScheduler"}, "TCDScheduler .* a few steps"),
        *(
            ("scheduler/scheduler_config.json", {"_class_name": name}, f"{name} is of another family")
            for name in ("EDMEulerScheduler", "CosineDPMSolverMultistepScheduler", "FlowMatchLCMScheduler")
        ),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"},
            "rescale_betas_zero_snr.*epsilon says nothing",
        ),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "its unet also hears time_cond_proj_dim"),
        ("unet/config.json", {"num_class_embeds": 1000}, "its unet also hears num_class_embeds"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type 'text_time'"),
        ("vae/config.json", {"latents_mean": [0.0] * 4}, "latents by latents_mean per channel"),
        (
            "vae/config.json",
            {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4},
            "latents_mean and latents_std",
        ),
        ("unet/config.json", {"in_channels": 9}, "its unet takes 9 channels"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderDC"]}, "its vae is a AutoencoderDC"),
        (
            "model_index.json",
            {"text_encoder": ["transformers", "T5EncoderModel"]},
            "T5EncoderModel, not a CLIPTextModel",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_computed_faithfully_is_refused_by_name(copy, file, facts, words):
    edit(copy / file, **facts)
    with pytest.raises(ValueError, match=words) as error:
        find_pipeline(str(copy))
    assert "\n" not in str(error.value)
    assert "Stable Diffusion 1, 2 or XL" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "DEISMultistepScheduler",
    ],
)
def test_samplers_of_the_same_noise_schedule_are_taken(copy, name):
    import diffusers

    folder = copy / "scheduler"
    config = json.loads((folder / "scheduler_config.json").read_text())
    getattr(diffusers, name).from_config(config).save_pretrained(folder)
    assert load_diffusion(str(copy)).schedule.config["prediction_type"] == config["prediction_type"]


def test_every_scheduler_of_diffusers_is_taken_or_refused_by_name(copy):
    """Taken are those that diffusers itself lets stand in for each other, but for the EDM family."""
    import diffusers
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

    alike = {member.name for member in KarrasDiffusionSchedulers} - {"EDMEulerScheduler"}
    alike |= {"DDIMParallelScheduler", "DDPMParallelScheduler", "SASolverScheduler"}
    names = {name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    taken = set()
    for name in names:
        edit(copy / "scheduler" / "scheduler_config.json", _class_name=name)
        with contextlib.suppress(ValueError):
            find_pipeline(str(copy))
            taken.add(name)
    assert taken == alike & names


def test_a_scheduler_that_does_not_say_its_class_is_the_one_of_the_index(copy):
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "_class_name"}))
    find_pipeline(str(copy))
    edit(copy / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    with pytest.raises(ValueError, match="its scheduler LCMScheduler"):
        find_pipeline(str(copy))


@pytest.mark.parametrize("length", [None, 10**30, 500])
@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_texts_are_as_long_as_the_text_encoder_takes(xl_copy, part, length):
    expected = load_diffusion(str(xl_copy)).text_states(["a cat"])
    path = xl_copy / part / "tokenizer_config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "model_max_length"}
    path.write_text(json.dumps(config if length is None else {**config, "model_max_length": length}))
    found = load_diffusion(str(xl_copy)).text_states(["a cat"])
    assert torch.equal(found.hidden, expected.hidden)


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_single_file_is_told_from_a_folder(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"is a single file: .*from_single_file\(FILE\)\.save_pretrained"):
        find_pipeline(str(path))


NAMES = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("variant", "name", "is_wanted"),
    [
        (None, f"{NAMES}.safetensors", True),
        (None, f"{NAMES}-00001-of-00002.safetensors", True),
        (None, f"{NAMES}.fp16.safetensors", False),
        (None, f"{NAMES}.fp16-00001-of-00002.safetensors", False),
        (None, f"{NAMES}-00001-of-00002.fp16.safetensors", False),
        ("fp16", f"{NAMES}.fp16.safetensors", True),
        ("fp16", f"{NAMES}.fp16-00001-of-00002.safetensors", True),
        ("fp16", f"{NAMES}-00001-of-00002.fp16.safetensors", True),
        ("fp16", f"{NAMES}-00001-of-00002.safetensors", False),
        ("fp16", f"{NAMES}.safetensors.index.fp16.json", True),
        ("fp16", f"{NAMES}.non_ema.safetensors", False),
    ],
)
def test_of_a_hub_id_the_files_of_the_variant_are_fetched(copy, monkeypatch, variant, name, is_wanted):
    fetched: list[str] = []

    def download(_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.extend(filter_repo_objects([f"unet/{name}"], allow_patterns=allow_patterns))
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with contextlib.suppress(ValueError):  # the folder holds no such variant
        find_pipeline("someone/some-model", variant=variant)
    assert fetched == ([f"unet/{name}"] if is_wanted else [])


@pytest.mark.parametrize("form", ["{stem}.fp16-{n:05d}-of-00002", "{stem}-{n:05d}-of-00002.fp16"])
def test_shards_of_a_variant_are_read_in_both_forms(copy, form):
    """Releases of diffusers up to 0.29 put the variant last."""
    plain = load_diffusion(str(copy)).denoiser.state_dict()
    rename_to_variant(copy)
    folder, weight_map = copy / "unet", {}
    state = load_file(folder / f"{NAMES}.fp16.safetensors")
    names = sorted(state)
    for n, part in ((1, names[::2]), (2, names[1::2])):
        file = form.format(stem=NAMES, n=n) + ".safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{NAMES}.fp16.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{NAMES}.safetensors.index.fp16.json").write_text(json.dumps(index))
    loaded = load_diffusion(str(copy), variant="fp16").denoiser.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())
    assert set(weight_map.values()) <= {
        name.removeprefix("unet/") for name in find_pipeline(str(copy), variant="fp16").files
    }


@pytest.mark.parametrize("is_xl", [False, True])
@pytest.mark.parametrize("others", [("safety_checker", "feature_extractor"), ("controlnet", "image_encoder")])
def test_diffusers_opens_a_copy_of_a_folder_with_parts_that_are_left_out(
    copy, xl_copy, tmp_path, is_xl, others
):
    from diffusers import DiffusionPipeline

    source = xl_copy if is_xl else copy
    known = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "controlnet": ["diffusers", "ControlNetModel"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    edit(source / "model_index.json", **{name: known[name] for name in others})
    if "controlnet" in others:
        kind = "StableDiffusionXLControlNetPipeline" if is_xl else "StableDiffusionControlNetPipeline"
        edit(source / "model_index.json", _class_name=kind)
    for name in others:
        (source / name).mkdir()
        (source / name / "config.json").write_text("{}")
    folder = find_pipeline(str(source))
    folder.copy_to(tmp_path / "written")
    opened = DiffusionPipeline.from_pretrained(tmp_path / "written", local_files_only=True)
    assert type(opened).__name__ == ("StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline")
    assert find_pipeline(str(tmp_path / "written")).files == folder.files


def test_a_copy_of_a_folder_without_other_parts_keeps_every_byte(copy, tmp_path):
    folder = find_pipeline(str(copy))
    folder.copy_to(tmp_path / "written")
    assert all(
        (copy / name).read_bytes() == (tmp_path / "written" / name).read_bytes() for name in folder.files
    )
