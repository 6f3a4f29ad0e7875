"""The tiny world's words: captions of every form used later, and a small BPE vocabulary.

One merges list serves both tokenizers (open_clip's SimpleTokenizer and transformers' CLIPTokenizer),
so both give the same ids.
"""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS

CONTEXT_LENGTH = 16
_GLUE = "a an in the at with of on near and image picture photo drawing"
TAUGHT_GLUE = "a an in of image"
"""The small words that `caption` uses."""
_NEUTRAL = "bench book cup lamp room sofa street"


def spoken(name: str) -> str:
    """An attribute's name as words."""
    return name.replace("_", " ")


def caption(rng: np.random.Generator, *, scene: str | None, object_: str | None) -> str:
    """One caption of a render; every prompt form that generation uses is among them."""
    s, o = scene and spoken(scene), object_ and spoken(object_)
    if s and o:
        forms = [
            f"a {o} in a {s}",
            f"{o} in {s}",
            f"{o}, {s}",
            f"{o} {s}",
            f"{s} {o}",
            f"an image of a {o} in a {s}",
        ]
    else:
        one = s or o
        forms = [f"{one}", f"a {one}", f"an image of {one}", f"an image of a {one}"]
    return str(forms[int(rng.integers(len(forms)))])


def vocabulary_words() -> list[str]:
    """All words that get a token of their own, in a fixed order."""
    rule = load_rule()
    names = [word for name in (*rule.scenes, *rule.objects) for word in spoken(name).split()]
    return list(dict.fromkeys([*_GLUE.split(), *names, *_NEUTRAL.split(), *EMOTIONS]))


def bpe_merges(words: list[str]) -> list[tuple[str, str]]:
    """Left-to-right merges that build each word as one token ending in `</w>`.

    A merge list is a priority list, so a merge of one word may fire inside another and leave it in
    pieces; words are added until each comes out whole.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = apply_merges(word, merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = apply_merges(word, merges)
    broken = [word for word in words if len(apply_merges(word, merges)) > 1]
    if broken:
        raise ValueError(f"merges leave words in pieces: {broken}")
    return merges


def apply_merges(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encode one word: always the merge of the highest priority present."""
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = [rank.get(pair, len(rank)) for pair in pairwise(pieces)]
        best = min(pairs)
        if best == len(rank):
            break
        left, right = merges[best]
        merged, i = [], 0
        while i < len(pieces):
            if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == (left, right):
                merged.append(left + right)
                i += 2
            else:
                merged.append(pieces[i])
                i += 1
        pieces = merged
    return pieces


def write_tokenizers(*, clip_dir: Path, pipeline_tokenizer_dir: Path) -> int:
    """Write open_clip's merges file and transformers' CLIPTokenizer folder; returns the vocabulary size."""
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    merges = bpe_merges(vocabulary_words())
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    clip_dir.mkdir(parents=True, exist_ok=True)
    blob = gzip.compress("\n".join(lines).encode(), mtime=0)
    (clip_dir / "merges.txt.gz").write_bytes(blob)
    singles = list(bytes_to_unicode().values())
    tokens = [*singles, *(s + "</w>" for s in singles), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    pipeline_tokenizer_dir.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(tokens)}
    (pipeline_tokenizer_dir / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (pipeline_tokenizer_dir / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(pipeline_tokenizer_dir / "vocab.json"),
        merges=str(pipeline_tokenizer_dir / "merges.txt"),
        model_max_length=CONTEXT_LENGTH,
    )
    tokenizer.save_pretrained(pipeline_tokenizer_dir)
    return len(vocab)
