"""The report, the card and the table of a run in other classes."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.label_spaces import BARE, OWN, OWN_CLASSES, every_space
from tests.report.conftest import generation
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.report.comparison import compare
from uniemo_ray.report.html import render_report
from uniemo_ray.report.model_card import model_card
from uniemo_ray.report.sections import evidence, gallery
from uniemo_ray.report.summary import Summary
from uniemo_ray.report.table import final_table
from uniemo_ray.statistics.coefficients import CoefficientSums


def in_space(values: dict[str, Any], space: LabelSpace) -> Summary:
    """The made-up run, as if it had been one of these classes."""
    size = len(space.labels)
    own = {"sketch_classes": OWN_CLASSES, "valences": space.valences} if space in (OWN, BARE) else {}
    labels = list(space.labels) if own else space.name
    values["config"]["data"] |= {"labels": labels, **own}
    for item in values["rounds"]:
        understood = {
            "accuracy": 0.8,
            "per_class": dict.fromkeys(space.labels, 0.8),
            "confusion": np.diag([5] * size).tolist(),
            "two_class": 0.9 if space.has_valence else None,
        }
        made = generation(80, 0.6, 1)
        made["per_emotion"] = {label: {"emo_a_clip": 0.6} for label in space.labels}
        made |= {"emo_a_clip_two_class": 0.9} if space.has_valence else {}
        item |= {"understanding": understood, "generation": made}
    values["references"] = {}
    return Summary.model_validate(values)


def shown(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(final_table(summary))
    return console.file.getvalue()


@every_space
def test_metrics_by_valence_are_shown_or_named_as_not_defined(space, values) -> None:
    summary = in_space(values, space)
    comparison = compare(summary)
    labels = [row.metric.label for row in (*comparison.understanding, *comparison.generation)]
    by_valence = ["2-class accuracy", "Emo-A (own classifier), 2-class"]
    if space.has_valence:
        assert comparison.not_defined == ()
        assert set(by_valence) <= set(labels)
        assert "not defined" not in render_report(summary) + model_card(summary) + shown(summary)
        return
    assert list(comparison.not_defined) == by_valence
    assert not set(by_valence) & set(labels)
    line = f"{', '.join(by_valence)}: not defined, because the labels have no valences"
    assert line in render_report(summary)
    assert line in model_card(summary)
    assert line in shown(summary)


@every_space
def test_the_card_has_the_labels_and_examples_that_work(space, values) -> None:
    card = model_card(in_space(values, space))
    assert f"Emotions: {', '.join(space.labels)}." in card
    assert f"a label among {len(space.labels)}" in card
    if space != MIKELS:
        first, second = space.labels[:2]
        assert f'generate(emotion="{first}", n=4' in card
        assert f'emotion={{"{first}": 0.6, "{second}": 0.4}}' in card
        assert "awe" not in card.replace("EmoSketch", "")
    else:
        assert 'image.save(f"awe-{number}.png")' in card
        assert 'emotion={"amusement": 0.6, "fear": 0.4}' in card


@every_space
def test_evidence_is_found_for_every_label(space) -> None:
    sums, size = CoefficientSums(labels=space.labels), len(space.labels)
    for column in range(size):
        row = np.full(size, 0.1 / (size - 1))
        row[column] = 0.9
        sums.update([row] * 6, [f"scene_{column}"] * 6, [None] * 6)
    found = evidence(sums.table())
    assert [item.emotion for item in found] == list(space.labels)
    assert [item.scenes[0].name for item in found] == [f"scene {column}" for column in range(size)]


def test_the_gallery_follows_the_order_of_the_labels(samples) -> None:
    wanted = ["sadness", "awe"]
    found = [emotion for emotion, _ in gallery(samples, wanted)]
    assert found[:2] == wanted
    assert found[2:] == sorted(found[2:])


def test_a_summary_of_own_labels_is_read_back(values) -> None:
    summary = in_space(values, OWN)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    values["config"]["data"]["sketch_classes"] = {}
    with pytest.raises(ValueError, match="no emotions for the label"):
        Summary.model_validate(values)
