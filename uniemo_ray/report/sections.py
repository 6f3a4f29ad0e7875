"""What the page says, section by section, as plain records; the template only arranges them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pydantic import JsonValue

from uniemo_ray.feedback.schema import ALPHA
from uniemo_ray.report.comparison import PLAIN, REAL
from uniemo_ray.report.samples import Picture, ShownSample, embed
from uniemo_ray.report.summary import GenerationMetrics, Round, Summary
from uniemo_ray.report.wording import GENERATION_METRICS, MISSING, NBSP, duration, number, percent, words

JUDGES = {
    metric.key: metric.label
    for metric in GENERATION_METRICS
    if metric.key in ("emo_a", "emo_a_clip", "emo_a_exact")
}
"""Metrics that say whether an image shows the intended emotion, and their labels."""
TOP_ATTRIBUTES = 3
RARE = 5


@dataclass(frozen=True)
class Mark:
    """A reference on a headline's bar; `share` in [0, 1]."""

    name: str
    share: float


@dataclass(frozen=True)
class Headline:
    """One large number. `share` draws a bar; `marks` are the references on it."""

    label: str
    value: str
    note: str
    share: float | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Card:
    """One picture with its caption."""

    picture: Picture
    alt: str
    attributes: str
    attributes_note: str
    verdict: str
    is_hit: bool | None
    fate: str


@dataclass(frozen=True)
class Strip:
    """Pictures of one emotion from one source."""

    label: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Attribute:
    """An attribute that speaks for an emotion: alpha (eq. 5) over `count` images."""

    name: str
    alpha: float
    count: int


@dataclass(frozen=True)
class Evidence:
    """The attributes that tell most about one emotion."""

    emotion: str
    scenes: tuple[Attribute, ...]
    objects: tuple[Attribute, ...]


def headlines(summary: Summary) -> tuple[Headline, ...]:
    """The numbers to look at first, each beside what it must be read against."""
    found = [_accuracy(summary), *_emo_a(summary)]
    filters = [item for item in summary.rounds if item.filter is not None]
    if filters and (counts := filters[-1].filter):
        note = f"generated images of round {filters[-1].round} passed the filter"
        found.append(Headline("Kept for training", f"{counts.kept:,} of {counts.total:,}", note))
    if summary.coefficients and summary.coefficients.mean_absolute_error is not None:
        value = number(summary.coefficients.mean_absolute_error)
        found.append(
            Headline("Coefficient error", value, "mean absolute error of alpha against the exact table")
        )
    if summary.steps:
        total = duration(sum(step.seconds for step in summary.steps))
        found.append(Headline("Time", total, f"in {len(summary.steps)} steps, all together"))
    return tuple(found)


def _accuracy(summary: Summary) -> Headline:
    last, ceiling = summary.rounds[-1], summary.dataset.ceiling
    value = last.understanding.accuracy
    notes, marks = [], []
    if ceiling:
        notes.append(f"{percent(value / ceiling.both)} of the ceiling" if ceiling.both else "")
        marks.append(Mark(f"ceiling {percent(ceiling.both)}", ceiling.both))
    if len(summary.rounds) > 1:
        first = summary.rounds[0]
        notes.append(f"round {first.round}: {percent(first.understanding.accuracy)}")
    note = "; ".join(note for note in notes if note) or "of test images named right"
    return Headline("Understanding accuracy", percent(value), note, value, tuple(marks))


def _emo_a(summary: Summary) -> list[Headline]:
    if summary.last_generation is None:
        return []
    item, generation = summary.last_generation
    found = []
    for key, label in JUDGES.items():
        value = getattr(generation, key)
        if value is None:
            continue
        marks = tuple(
            Mark(f"{name} {percent(getattr(reference, key))}", getattr(reference, key))
            for name, reference in (
                ("plain prompt", summary.references.plain_prompt),
                ("real images", summary.references.real),
            )
            if reference is not None and getattr(reference, key) is not None
        )
        note = f"of the images generated in round {item.round} show the intended emotion"
        found.append(Headline(label, percent(value), note, value, marks))
    return found


def gallery(
    samples: Sequence[ShownSample], labels: Sequence[str]
) -> tuple[tuple[str, tuple[Strip, ...]], ...]:
    """Pictures by emotion in the order of `labels`, then others by name.

    Within an emotion real ones come first, then the plain prompt, then the rounds.
    """
    order = {emotion: index for index, emotion in enumerate(labels)}
    emotions = sorted(
        {sample.emotion for sample in samples}, key=lambda name: (order.get(name, len(order)), name)
    )
    return tuple((emotion, _strips([s for s in samples if s.emotion == emotion])) for emotion in emotions)


def _strips(samples: Sequence[ShownSample]) -> tuple[Strip, ...]:
    places: dict[tuple[int, int], list[ShownSample]] = {}
    for sample in samples:
        rank = ("real", "plain_prompt", "generated").index(sample.source)
        places.setdefault((rank, sample.round or 0), []).append(sample)
    names = (REAL, PLAIN)
    return tuple(
        Strip(names[rank] if rank < 2 else f"Generated, round {round_}", tuple(map(_card, group)))
        for (rank, round_), group in sorted(places.items())
    )


def _card(sample: ShownSample) -> Card:
    what = {"real": "Test image labelled", "plain_prompt": "Image generated from the plain prompt for"}
    carried = [words(name) for name in (sample.scene, sample.object) if name]
    weights = [
        f"{words(name)} weighs {number(weight)}"
        for name, weight in ((sample.scene, sample.scene_weight), (sample.object, sample.object_weight))
        if name and weight is not None
    ]
    is_hit = None if sample.predicted is None else sample.predicted == sample.emotion
    alt = f"{what.get(sample.source, 'Image generated for')} {sample.emotion}"
    return Card(
        picture=embed(sample),
        alt=alt + (f", with {' and '.join(carried)}" if carried else ""),
        attributes=", ".join(carried),
        attributes_note="; ".join(weights),
        verdict=_verdict(sample, is_hit),
        is_hit=is_hit,
        fate={None: "", True: "kept", False: "dropped"}[sample.kept],
    )


def _verdict(sample: ShownSample, is_hit: bool | None) -> str:
    parts = [] if sample.emo_score is None else [f"{sample.emotion} {sample.emo_score:.2f}"]
    if is_hit is False:
        parts.append(f"read as {sample.predicted}")
    return ", ".join(parts)


def emotion_table(summary: Summary) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Columns and rows of the figures per emotion: recall and both Emo-A, newest round and references."""
    last = summary.rounds[-1]
    newest = summary.last_generation
    sets: list[tuple[str, GenerationMetrics | None]] = [
        (REAL.lower(), summary.references.real),
        (PLAIN.lower(), summary.references.plain_prompt),
        (f"round {newest[0].round}" if newest else "", newest[1] if newest else None),
    ]
    shown = [
        (f"{JUDGES[key]}, {name}", key, part)
        for key in ("emo_a", "emo_a_clip")
        for name, part in sets
        if part and any(key in row for row in part.per_emotion.values())
    ]
    rows = []
    for emotion, recall in last.understanding.per_class.items():
        shares = [part.per_emotion.get(emotion, {}).get(key) for _, key, part in shown]
        rows.append((emotion, (percent(recall), *map(percent, shares))))
    return (f"Recall, round {last.round}", *(name for name, *_ in shown)), tuple(rows)


def confusion_rows(item: Round) -> tuple[tuple[str, tuple[tuple[int, float], ...]], ...]:
    """Per true emotion: (count, percent of the row) of each predicted one."""
    part = item.understanding
    return tuple(
        (name, tuple((count, 100 * count / max(sum(row), 1)) for count in row))
        for name, row in zip(part.per_class, part.confusion, strict=True)
    )


def evidence(table: pa.Table) -> tuple[Evidence, ...]:
    """The TOP_ATTRIBUTES scenes and objects of highest alpha per emotion, if seen RARE times or more.

    Args:
        table: Columns `attribute`, `kind` (`scene` or `object`), `count` and `alpha_<emotion>`.
    """
    rows = table.to_pylist()
    labels = [name.removeprefix(ALPHA) for name in table.column_names if name.startswith(ALPHA)]
    found = []
    for emotion in labels:
        key = f"{ALPHA}{emotion}"
        best = {
            kind: tuple(
                Attribute(words(row["attribute"]), row[key], row["count"])
                for row in sorted(rows, key=lambda row: (-row[key], row["attribute"]))
                if row["kind"] == kind and row["count"] >= RARE and row[key] > 1 / len(labels)
            )[:TOP_ATTRIBUTES]
            for kind in ("scene", "object")
        }
        found.append(Evidence(emotion, best["scene"], best["object"]))
    return tuple(found)


def flatten(values: Mapping[str, JsonValue], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Nested JSON as (dotted key, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += flatten(value, f"{name}.")
        elif isinstance(value, list):
            pairs.append((name, ", ".join(map(_plain, value)) or MISSING))
        else:
            pairs.append((name, _plain(value)))
    return tuple(pairs)


def _plain(value: JsonValue) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", NBSP)
