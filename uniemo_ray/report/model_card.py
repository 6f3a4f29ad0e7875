"""The model card: `README.md` of a model folder."""

import re
from typing import Any

import yaml

from uniemo_ray.config import Config
from uniemo_ray.report.comparison import Comparison, compare
from uniemo_ray.report.sections import JUDGES
from uniemo_ray.report.summary import Summary
from uniemo_ray.report.wording import MISSING, percent

LIMITS_SKETCH = """\
* **Its labels are a rule, not human ratings.** EmoSketch draws an emotion label from statistics of EmoSet
  (how often a scene or an object occurs with an emotion); no person rated these pictures. The model has
  learned that rule.
* **Its world is tiny:** 16 drawn scenes and 24 drawn objects at low resolution. It says nothing useful about
  photographs.
* Base models of this preset were trained on EmoSketch renders as well, not on web images."""
NEAR_REAL = """
* **Its pictures stay near real ones** (`emotion_space.kind: neighbours`): each starts from the features of
  one training image, which this folder holds together with the image's id."""
LIMITS_PHOTOS = """\
* It reproduces the labels of its data set, with that data set's annotators, cultures and gaps.
* Generated pictures are judged by classifiers, not by people.
* Limits and licences of the CLIP and diffusion models that it was built on apply to it as well."""
BODY = """\
# UniEmo on {name}

One model for two tasks around one CLIP image encoder with learnable expert queries (UniEmo, Zhu et al.,
arXiv 2507.23372): *understanding* (image to emotion, with scene and object attributes) and *generation*
(emotion to image). Made by `uniemo_ray` with the complete feedback loop: joint training, generation,
dual-metric filter, training again.

Emotions: {emotions}.

## Use

```python
from PIL import Image

from uniemo_ray import UniEmo

model = UniEmo.from_pretrained("path/to/this/folder")

result = model.understand([Image.open("picture.png")])[0]
print(result.top, result.emotions, result.scenes, result.objects)

for number, image in enumerate(model.generate(emotion="{one}", n=4, seed=7)):
    image.save(f"{one}-{{number}}.png")
model.generate(emotion={{"{first}": 0.6, "{second}": 0.4}}, prompt="{{}} room", n=1, seed=7)
```

## Intended use

Research on visual emotion analysis and on feedback between understanding and generation; teaching; a
complete example of a distributed training loop. **Not** for judging what a person feels, for decisions about
people, or for manipulating them.

## Limits

{limits}
* An emotion is a label among {count}, of a picture and not of a person; most pictures evoke several.

## Training data

{data}

## Metrics

{metrics}

{meanings}

± is one standard error. Settings of the model are in `config.json`; how the numbers came about is in the
run's `report.html` and `summary.json`.
"""


def model_card(summary: Summary) -> str:
    """Markdown with YAML front matter; text from data is escaped for Markdown and HTML."""
    comparison = compare(summary)
    emotions = list(summary.rounds[-1].understanding.per_class)
    one = "awe" if "awe" in emotions else emotions[0]
    first, second = ("amusement", "fear") if {"amusement", "fear"} <= set(emotions) else emotions[:2]
    body = BODY.format(
        name=_escape(summary.dataset.name),
        emotions=", ".join(_escape(emotion) for emotion in emotions),
        count=len(emotions),
        one=one,
        first=first,
        second=second,
        limits=_limits(summary.config),
        data=_data(summary),
        metrics=_table(comparison),
        meanings=_meanings(comparison),
    )
    front = yaml.safe_dump(_front_matter(summary), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{body}"


def _limits(config: Config) -> str:
    limits = LIMITS_SKETCH if config.data.kind == "sketch" else LIMITS_PHOTOS
    return limits + (NEAR_REAL if config.emotion_space.kind == "neighbours" else "")


def _front_matter(summary: Summary) -> dict[str, Any]:
    task = {"type": "image-classification", "name": "Emotion understanding"}
    accuracy = {"type": "accuracy", "name": "Accuracy", "value": summary.rounds[-1].understanding.accuracy}
    name = " ".join(summary.dataset.name.split())
    dataset = {"type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), "name": name}
    results = [{"task": task, "dataset": dataset | {"split": "test"}, "metrics": [accuracy]}]
    if summary.last_generation:
        generation = summary.last_generation[1]
        shares = {key: getattr(generation, key) for key in JUDGES}
        judged = [
            {"type": key, "name": JUDGES[key], "value": share}
            for key, share in shares.items()
            if share is not None
        ]
        task = {"type": "text-to-image", "name": "Emotion generation"}
        results += [{"task": task, "dataset": dataset, "metrics": judged}] if judged else []
    return {
        "library_name": "uniemo_ray",
        "tags": ["emotion", "visual-emotion-analysis", "image-classification", "diffusion", "uniemo"],
        "model-index": [{"name": "uniemo", "results": results}],
    }


def _data(summary: Summary) -> str:
    sizes = ", ".join(f"{size:,} {_escape(split)}" for split, size in summary.dataset.sizes.items())
    text = f"{_escape(summary.dataset.name)}: {sizes} images."
    if ceiling := summary.dataset.ceiling:
        text += (
            f" The best accuracy that anyone can reach on it is {percent(ceiling.both)} "
            f"(from the scene alone {percent(ceiling.scene)}, "
            f"from the object alone {percent(ceiling.object)})."
        )
    kept = [f"{item.filter.kept:,} in round {item.round}" for item in summary.rounds if item.filter]
    return text + (
        f" Generated images that the filter let back into training: {', '.join(kept)}." if kept else ""
    )


def _table(comparison: Comparison) -> str:
    lines = ["| Metric | " + " | ".join(comparison.columns) + " |"]
    lines.append("| --- |" + " ---: |" * len(comparison.columns))
    for row in comparison.understanding + comparison.generation:
        arrow = "↑" if row.metric.direction == "up" else "↓"
        lines.append(
            f"| {row.metric.label} {arrow} | " + " | ".join(cell or MISSING for cell in row.cells) + " |"
        )
    return "\n".join(lines)


def _meanings(comparison: Comparison) -> str:
    rows = comparison.understanding + comparison.generation
    lines = [f"* {row.metric.label}: {row.metric.meaning}." for row in rows]
    return "\n".join(lines + ([f"* {comparison.why_not_defined}."] if comparison.not_defined else []))


def _escape(text: str) -> str:
    """Text as itself inside Markdown: no markup, no HTML, one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|#])", r"\\\1", flat)
