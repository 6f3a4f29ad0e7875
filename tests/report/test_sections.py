from dataclasses import replace
from typing import Any

import pyarrow as pa

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.report.samples import ShownSample
from uniemo_ray.report.sections import confusion_rows, emotion_table, evidence, flatten, gallery, headlines
from uniemo_ray.report.summary import Summary


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_headlines_stand_beside_ceiling_and_references(summary: Summary) -> None:
    found = {item.label: item for item in headlines(summary)}
    accuracy = summary.rounds[-1].understanding.accuracy
    ceiling = summary.dataset.ceiling
    assert ceiling is not None
    assert found["Understanding accuracy"].share == accuracy
    assert f"{100 * accuracy / ceiling.both:.1f} % of the ceiling" in plain(
        found["Understanding accuracy"].note
    )
    assert [plain(mark.name) for mark in found["Emo-A (own classifier)"].marks] == [
        "plain prompt 31.2 %",
        "real images 80.6 %",
    ]
    assert found["Kept for training"].value == "284 of 802"
    assert found["Coefficient error"].value == "0.021"


def test_headlines_without_optional_parts(values: dict[str, Any]) -> None:
    values |= {"references": {}, "coefficients": None, "steps": [], "rounds": values["rounds"][:1]}
    values["dataset"]["ceiling"] = values["rounds"][0]["generation"] = values["rounds"][0]["filter"] = None
    (only,) = headlines(Summary.model_validate(values))
    assert only.label == "Understanding accuracy"
    assert only.marks == ()


def test_gallery_goes_from_real_over_plain_to_the_rounds(samples: list[ShownSample]) -> None:
    found = gallery(list(reversed(samples)), EMOTIONS)
    assert [emotion for emotion, _ in found][:2] == ["amusement", "awe"]
    assert len(found) == 8
    for _, strips in found:
        labels = [strip.label for strip in strips]
        assert labels == ["Real test images", "Plain prompt", "Generated, round 0", "Generated, round 1"]
        assert [len(strip.cards) for strip in strips] == [4, 4, 4, 4]


def test_caption_says_attributes_score_and_fate(samples: list[ShownSample]) -> None:
    sample = replace(
        samples[8], scene="mountain_snowy", object=None, emo_score=0.25, predicted="fear", kept=False
    )
    ((_, (strip,)),) = gallery([sample], EMOTIONS)
    (card,) = strip.cards
    assert card.attributes == "mountain snowy"
    assert card.attributes_note == "mountain snowy weighs 0.620"
    assert card.verdict == "amusement 0.25, read as fear"
    assert card.is_hit is False
    assert card.fate == "dropped"
    assert card.alt == "Image generated for amusement, with mountain snowy"


def test_emotion_table_has_recall_and_every_measured_set(summary: Summary) -> None:
    columns, rows = emotion_table(summary)
    assert columns == (
        "Recall, round 1",
        *(f"Emo-A (own classifier), {name}" for name in ("real test images", "plain prompt", "round 1")),
    )
    recall = summary.rounds[1].understanding.per_class["awe"]
    assert recall is not None
    assert plain(dict(rows)["awe"][0]) == f"{100 * recall:.1f} %"


def test_confusion_shares_sum_to_the_row(summary: Summary) -> None:
    rows = confusion_rows(summary.rounds[0])
    assert [name for name, _ in rows][:2] == ["amusement", "awe"]
    for _, cells in rows:
        assert sum(count for count, _ in cells) == 125
        assert abs(sum(share for _, share in cells) - 100) < 1e-9


def test_evidence_lists_the_strongest_attributes_that_are_not_rare(coefficients: pa.Table) -> None:
    found = {row.emotion: row for row in evidence(coefficients)}
    assert found["sadness"].scenes[0].name == "cemetery"
    assert found["anger"].objects[0].name == "lion"
    assert all(len(row.scenes) <= 3 and len(row.objects) <= 3 for row in found.values())
    alphas = [item.alpha for item in found["awe"].scenes]
    assert alphas == sorted(alphas, reverse=True)
    rare = pa.Table.from_pylist([{**row, "count": 4} for row in coefficients.to_pylist()])
    assert all(row.scenes == row.objects == () for row in evidence(rare))


def test_flatten_names_nested_values() -> None:
    pairs = flatten({"a": {"b": 1, "c": None}, "d": [1, "x"], "e": True, "f": 0.123456, "g": []})
    assert pairs == (("a.b", "1"), ("a.c", "–"), ("d", "1, x"), ("e", "yes"), ("f", "0.1235"), ("g", "–"))
