"""Which CLIPs are read as they were trained; all others are refused by name, from config and file alone."""

import zipfile
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip

_OF_OPENAI = frozenset(("input_resolution", "context_length", "vocab_size"))
"""Entries that only the weights which OpenAI published have beside those of the modules."""


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a CLIP of an open_clip `model_cfg` would compute something else here; None if it would not."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    if config.get("custom_text") or "hf_model_name" in text or "multimodal_cfg" in config:
        return "expected a plain CLIP config, got a custom text tower"
    if "hf_tokenizer_name" in text:
        return f"its texts go through the tokenizer {text['hf_tokenizer_name']!r}, not through CLIP's own"
    if text.get("tokenizer_kwargs"):
        return f"its tokenizer has settings of its own ({', '.join(text['tokenizer_kwargs'])})"
    if text.get("pool_type", "argmax") != "argmax":
        return f"its text tower pools by {text['pool_type']!r}, not at the end of the text"
    if "timm_model_name" in vision:
        return f"its image tower is timm's {vision['timm_model_name']}, not a CLIP ViT"
    if isinstance(vision.get("layers"), list | tuple):
        return "its image tower is a ResNet, not a CLIP ViT"
    return None


def check_kind(config: Mapping[str, Any]) -> None:
    """Refuse an architecture that is not read as it was trained.

    Raises:
        ValueError: one line with the reason.
    """
    if why := refusal(config):
        raise ValueError(f"{why}: choose an OpenAI-style ViT model, such as ViT-B-32 or ViT-L-14")


def check_archive(path: Path) -> None:
    """Refuse a TorchScript archive, which holds a program and not only weights.

    Raises:
        ValueError: it is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        has_code = any("/code/" in f"/{name}" for name in archive.namelist())
    if has_code:
        raise ValueError(
            f"{path} is a TorchScript archive, which is a program: save its state_dict as safetensors, or "
            f"set encoder.clip_pretrained to the tag (openai for OpenAI's)"
        )


def check_activation(config: Mapping[str, Any], keys: Collection[str], path: Path) -> None:
    """Refuse OpenAI's weights under a config without the activation they were trained with.

    Raises:
        ValueError: the config does not say QuickGELU.
    """
    if _OF_OPENAI.intersection(keys) and not config.get("quick_gelu"):
        raise ValueError(
            f"{path} holds OpenAI's weights, which were trained with QuickGELU: choose the model's name with "
            f"-quickgelu, or set quick_gelu in the folder's model_cfg"
        )


def describe_unknown(name: str) -> str:
    """What an unknown name may be, as the middle of a sentence; empty when nothing is known."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return ", as names with a colon are not taken, a folder goes without"
    if Path(name).is_file():
        return ", which is a file: name the model here, and the file in encoder.clip_pretrained"
    wanted = name.replace("/", "-").lower()
    known = {model.lower(): model for model in open_clip.list_models()}
    near = get_close_matches(wanted, known, n=1, cutoff=0.8)
    return f", do you mean {known[near[0]]}" if near else ""
