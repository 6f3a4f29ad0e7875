import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from uniemo_ray.report.figures import StageHistory, Validation
from uniemo_ray.report.html import render_report, write_report
from uniemo_ray.report.rank_sample import sample_ranks
from uniemo_ray.report.samples import ShownSample
from uniemo_ray.report.summary import Summary

VOID = {"meta", "link", "img", "br", "line", "rect", "path"}
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Tags with their attributes; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing, at {self.getpos()}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(
    summary: Summary,
    samples: list[ShownSample],
    ranks: pa.Table,
    history: list[StageHistory],
    coefficients: pa.Table,
    tmp_path: Path,
) -> str:
    out = tmp_path / "run" / "report.html"
    write_report(
        summary, samples, {0: sample_ranks([ranks], ("emo", "sem"))}, history, out, coefficients=coefficients
    )
    return out.read_text(encoding="utf-8")


def test_every_section_is_there_and_linked(page: str) -> None:
    parsed = Page(page)
    names = ["method", "pictures", "metrics", "understanding", "coefficients", "filter", "losses", "steps"]
    names.append("reproduce")
    assert [section["id"] for section in parsed.all("section")] == names
    assert {link["href"] for link in parsed.all("a")} == {f"#{name}" for name in names}


def test_it_says_what_the_labels_are(page: str) -> None:
    assert "Its emotion labels are a rule drawn from the statistics of the EmoSet data set" in page
    assert "not human ratings of these pictures" in page


def test_figures_are_in_the_page(page: str, summary: Summary) -> None:
    text = page.replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "80.9 %",
        "63.4 % ± 1.6",
        "4.731",
        "284 of 802",
        "0.021",
        "emotion score among the best",
    ):
        assert expected in text
    assert "&lt;emotion&gt;" not in text  # the prompt is a default, so it is not among the listed settings
    assert "sketch_train: 2000" in text
    assert "160 to 639" in text
    for count in summary.rounds[1].understanding.confusion[0]:
        assert f">{count}</td>" in text


def test_charts_and_pictures_are_inline_and_described(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.all("svg")) == 1 + 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in parsed.all("svg"))
    images = parsed.all("img")
    assert len(images) == 8 * 4 * 4
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in images)
    assert all(image["class"] == "pixels" for image in images)
    assert "image-rendering: pixelated" in page


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    parsed = Page(page)
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            if name in {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"}:
                assert (value or "").startswith(("data:", "#")), (name, value)
            assert not name.startswith("on")
    assert not parsed.all("script") + parsed.all("iframe") + parsed.all("form")
    assert re.search(r"https?:|url\(|@import", page) is None
    (policy,) = [meta for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert (policy["content"] or "").startswith("default-src 'none';")


def test_tables_have_captions_and_scoped_headers(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.all("table")) == len(parsed.all("caption")) == 7
    assert all(header.get("scope") for header in parsed.all("th"))


def test_same_input_gives_the_same_bytes(
    page: str,
    summary: Summary,
    samples: list[ShownSample],
    ranks: pa.Table,
    history: list[StageHistory],
    coefficients: pa.Table,
) -> None:
    again = render_report(
        summary,
        samples=samples,
        scores={0: sample_ranks([ranks], ("emo", "sem"))},
        history=history,
        coefficients=coefficients,
    )
    assert again == page


def test_text_from_data_is_escaped(
    values: dict[str, Any], samples: list[ShownSample], coefficients: pa.Table
) -> None:
    values["dataset"] |= {"name": EVIL, "sizes": {EVIL: 3}, "rejected": {EVIL: 1}}
    values["environment"] = {EVIL: EVIL, "nested": {EVIL: [EVIL]}}
    values["steps"] = [{"name": EVIL, "seconds": 1.0}]
    values["config"]["diffusion"]["plain_prompt"] = EVIL + "{emotion}"
    values["rounds"][0]["filter"] |= {"reasons": {EVIL: 1}, "not_scored": {EVIL: 1}}
    values["rounds"][0]["filter"]["thresholds"][0] |= {"criterion": EVIL, "group": EVIL}
    for part in values["rounds"]:
        part["understanding"]["per_class"] = {f"{EVIL}{index}": 0.5 for index in range(8)}
    evil = replace(samples[0], emotion=EVIL, scene=EVIL, object=EVIL, predicted="</figcaption>")
    rows = [{**row, "attribute": EVIL} for row in coefficients.to_pylist()]
    page = render_report(
        Summary.model_validate(values),
        samples=[evil],
        history=[StageHistory(0, EVIL, [1, 2], {EVIL: [1.0, 0.5]})],
        coefficients=pa.Table.from_pylist(rows),
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)") > 20
    assert len(Page(page).all("img")) == 1


def test_without_any_optional_part(values: dict[str, Any]) -> None:
    values |= {"references": {}, "coefficients": None, "steps": [], "environment": {}}
    values["dataset"] = {"name": "photos", "sizes": {"test": 10}, "ceiling": None}
    values["rounds"] = values["rounds"][:1]
    values["rounds"][0] |= {"generation": None, "filter": None}
    values["config"]["data"] |= {"kind": "emoset", "root": "photos"}
    page = render_report(Summary.model_validate(values))
    names = [section["id"] for section in Page(page).all("section")]
    assert names == ["method", "metrics", "understanding", "reproduce"]
    assert "EmoSketch" not in page
    assert "ceiling" not in page.replace("\n", " ").split("<body>")[1].lower()


def test_per_emotion_filter_without_its_ranks(values: dict[str, Any]) -> None:
    values["config"]["filter"] |= {"scope": "per_emotion", "criteria": ["emo"]}
    row = values["rounds"][0]["filter"]["thresholds"][0]
    empty = {"end_rank": 160, "best_score": None, "worst_score": None}
    values["rounds"][0]["filter"]["thresholds"] = [row | {"group": "awe"}, row | {"group": "fear"} | empty]
    page = render_report(Summary.model_validate(values))
    assert "each emotion by itself" in page
    assert '<td class="text">fear</td><td>800</td><td>none</td><td>–</td>' in page


def test_images_without_attributes_or_scores(summary: Summary, samples: list[ShownSample]) -> None:
    bare = ShownSample("x", "generated", "awe", samples[0].image, round=0)
    (image,) = Page(render_report(summary, samples=[bare])).all("img")
    assert image["alt"] == "Image generated for awe"


def test_an_unreadable_picture_is_named(summary: Summary) -> None:
    with pytest.raises(ValueError, match="'broken'"):
        render_report(summary, samples=[ShownSample("broken", "real", "awe", b"")])


def test_validation_and_an_empty_filter_are_said(
    values: dict[str, Any], samples: list[ShownSample], coefficients: pa.Table
) -> None:
    def page_of(kept: int, history: list[StageHistory]) -> str:
        values["rounds"][0]["filter"]["kept"] = kept
        summary = Summary.model_validate(values)
        return render_report(summary, samples=samples, history=history, coefficients=coefficients)

    validated = StageHistory(1, "joint", [1, 2], {"loss": [1.0, 0.5]}, [Validation(2, 0.75, 0.625)])
    empty = page_of(0, [validated]).replace("\N{NO-BREAK SPACE}", " ")
    assert "No image lies in the band of every score" in empty
    assert "validation loss, after each epoch" in empty
    assert "Validation accuracy after each epoch: 62.5 %" in empty
    plain = page_of(5, [StageHistory(1, "joint", [1, 2], {"loss": [1.0, 0.5]})])
    assert "No image lies in the band" not in plain
    assert "alidation accuracy" not in plain
