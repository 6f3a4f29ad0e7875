"""Vision-language models of random weights with a few words, as folders in transformers' layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = "question which emotion does this picture evoke answer : ? user assistant awe amusement park joy"
SIDE, QUERIES = 16, 3
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": SIDE, "patch_size": 8}
QFORMER = {**SMALL, "encoder_hidden_size": 16, "vocab_size": 30, "max_position_embeddings": 40}


def tokenizer(*, first: str = "", last: str = "") -> PreTrainedTokenizerFast:
    """One token for each word; `first` and `last` stand around every text."""
    ids = {word: i for i, word in enumerate([*SPECIAL, *WORDS.split()])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    around = " ".join(part for part in (first, "$A", last) if part)
    marks = [(mark, ids[mark]) for mark in (first, last) if mark]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )


def _text(kind: str) -> dict[str, object]:
    vocabulary = len(SPECIAL) + len(WORDS.split())
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocabulary}
    if kind == "t5":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        return T5Config(**sizes, **marks, decoder_start_token_id=0).to_dict()
    sizes = {"ffn_dim": 24, "max_position_embeddings": 64, "word_embed_proj_dim": 16, **SMALL}
    return OPTConfig(**sizes, **marks).to_dict()


def _loud(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights hardly let the picture through; larger ones do."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1 if "query_tokens" in name else 0.4)
    return model


def write_blip2(folder: Path, *, text: str = "opt") -> Path:
    """BLIP-2 with a decoder (`opt`) or an encoder-decoder (`t5`)."""
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=_text(text),
        num_query_tokens=QUERIES,
        image_token_index=4,
    )
    _loud(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    words = tokenizer(last="</s>") if text == "t5" else tokenizer(first="<s>")
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    Blip2Processor(images, words, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def write_instructblip(folder: Path) -> Path:
    """InstructBLIP with a decoder."""
    torch.manual_seed(1)
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=_text("opt"),
        num_query_tokens=QUERIES,
        image_token_index=4,
    )
    _loud(InstructBlipForConditionalGeneration(config)).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = InstructBlipProcessor(images, tokenizer(first="<s>"), tokenizer(), num_query_tokens=QUERIES)
    processor.save_pretrained(folder)
    return folder


def write_llava(folder: Path) -> Path:
    """LLaVA on a CLIP tower and a LLaMA."""
    torch.manual_seed(2)
    vocabulary = len(SPECIAL) + len(WORDS.split())
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **SMALL,
        ),
        image_token_index=4,
        vision_feature_layer=-1,
    )
    _loud(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    LlavaProcessor(
        images,
        tokenizer(first="<s>"),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder
