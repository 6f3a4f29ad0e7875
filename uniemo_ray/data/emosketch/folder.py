"""The folder of an EmoSketch: what it claims to be, its info.json and its plain words about the labels."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from uniemo_ray.config import SPLITS
from uniemo_ray.data.emosketch.classes import Classes, rule_of
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.store.atomic import is_temporary, write_atomically

SETTINGS_FILE = "sketch.json"
README_FILE = "README.txt"
_README = """\
EmoSketch: {train} training, {val} validation and {test} test pictures.
Side {size_px} pixels, seed {seed}.

These pictures are generated drawings. Their emotion labels are NOT human ratings of these pictures:
they are a rule drawn from the attribute statistics of EmoSet-118K (Yang et al., ICCV 2023). {rule} \
So the best possible accuracy is known exactly:
{scene:.1%} from the scene alone, {object:.1%} from the object alone, {both:.1%} from both.

Layout: that of EmoSet-118K (image/, annotation/, info.json, train.json, val.json, test.json).
No picture, annotation or file of EmoSet is contained.
brightness: mean luma (BT.601), 0 to 1. colorfulness: Hasler and Suesstrunk's M (2003) divided by 109,
cut at 1. Both are measured on the pixels and rounded to EmoSet's eleven levels 0.0, 0.1, ..., 1.0.
"""
_OF_EMOTIONS = """\
An emotion
is drawn uniformly, then one scene and one object independently given the emotion, with the
frequencies counted there (add-one smoothing)."""
_OF_CLASSES = """\
A class
is drawn uniformly, then one of its emotions uniformly, then one scene and one object independently given
the emotion, with the frequencies counted there (add-one smoothing). Classes and their emotions:
{classes}."""


@dataclass(frozen=True)
class SketchSettings:
    """What determines every byte of a generated data set."""

    train: int
    """Training images."""
    val: int
    """Validation images."""
    test: int
    """Test images."""
    seed: int
    """Seed of the set, 0 or larger."""
    size_px: int
    """Side of an image."""
    classes: Classes = ()
    """What its labels stand for, where they are not the eight emotions."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in order."""
        return tuple(label for label, _ in self.classes) or EMOTIONS

    def size(self, split: str) -> int:
        """Number of images of a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def is_finished(root: Path) -> bool:
    """Whether a folder that `write_sketch` has begun is complete."""
    lists = [f"{split}.json" for split in SPLITS]
    return all((root / name).is_file() for name in (*lists, README_FILE, "info.json"))


def claim_folder(root: Path, settings: SketchSettings) -> None:
    """Mark a folder as this very EmoSketch.

    Raises:
        ValueError: where it holds something else, or an EmoSketch of other settings or other art.
    """
    wanted = _claim(settings)
    marker = root / SETTINGS_FILE
    if marker.is_file():
        found = _load_settings(marker)
        changed = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if changed:
            differences = "; ".join(f"{key} {found.get(key)!r}, not {wanted.get(key)!r}" for key in changed)
            raise ValueError(
                f"{root} holds another EmoSketch ({differences}): delete it or name another folder"
            )
        return
    # A killed process may have left the marker's own temporary file.
    if root.exists() and (not root.is_dir() or any(not is_temporary(item.name) for item in root.iterdir())):
        raise ValueError(f"{root} is not empty and no EmoSketch: name an empty or a new folder")
    put_file(marker, to_json(wanted))


def _claim(settings: SketchSettings) -> dict[str, Any]:
    """What the marker of a folder says."""
    stated = asdict(settings)
    classes = [[label, list(emotions)] for label, emotions in stated.pop("classes")]
    own = {"classes": classes} if classes else {}
    return {"format": "EmoSketch", **stated, **own, "drawing": _drawing_version(bool(classes))}


def _load_settings(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_bytes())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _drawing_version(has_classes: bool) -> str:
    """Digest of everything in this package that a picture or label is made from."""
    package = files("uniemo_ray.data.emosketch")
    digest = hashlib.sha256()
    also = ("classes.py",) if has_classes else ()
    for name in ("compose.py", "labels.py", "rule.py", "counts.csv", *also):
        digest.update((package / name).read_bytes())
    for kind in ("clutter", "objects", "scenes"):
        for art in sorted((package / "art" / kind).iterdir(), key=lambda file: file.name):
            if art.name.endswith(".svg"):
                digest.update(f"{kind}/{art.name}".encode() + art.read_bytes())
    return digest.hexdigest()[:16]


def describe(settings: SketchSettings) -> bytes:
    """Text of the folder's README."""
    rule, ceiling = _OF_EMOTIONS, load_rule().ceiling()
    if settings.classes:
        classes = "\n".join(f"{label}: {', '.join(emotions)}" for label, emotions in settings.classes)
        rule, ceiling = _OF_CLASSES.format(classes=classes), rule_of(settings.classes).ceiling()
    return _README.format(**asdict(settings), **asdict(ceiling), rule=rule).encode()


def label_lists(emotions: Sequence[str]) -> dict[str, Any]:
    """EmoSet's own info.json: every label with its index, and back."""
    levels = [str(i / 10) for i in range(11)]
    rule = load_rule()
    labels = {
        "emotion": emotions,
        "brightness": levels,
        "colorfulness": levels,
        "scene": rule.scenes,
        "object": rule.objects,
    }
    return {
        kind: {
            "label2idx": {name: i for i, name in enumerate(names)},
            "idx2label": {str(i): name for i, name in enumerate(names)},
        }
        for kind, names in labels.items()
    }


def to_json(value: Any) -> bytes:
    """JSON text with a line end; lists on one line."""
    return (json.dumps(value, indent=None if isinstance(value, list) else 1) + "\n").encode()


def put_file(path: Path, data: bytes) -> None:
    """Write a file so that a killed process leaves all of it or nothing; it can be drawn again."""
    with write_atomically(path, is_durable=False) as file:
        file.write(data)
