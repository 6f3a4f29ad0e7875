import ast
import re
from typing import Any

import yaml

from uniemo_ray.report.model_card import model_card
from uniemo_ray.report.summary import Summary


def parts(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    parsed = yaml.safe_load(front)
    assert isinstance(parsed, dict)
    return parsed, body


def test_front_matter_holds_the_results(summary: Summary) -> None:
    front, _ = parts(model_card(summary))
    understanding, generation = front["model-index"][0]["results"]
    assert understanding["metrics"][0]["value"] == summary.rounds[-1].understanding.accuracy
    assert generation["metrics"][0]["value"] == 0.681
    assert understanding["dataset"] == {"type": "emosketch", "name": "EmoSketch", "split": "test"}


def test_body_says_limits_metrics_and_use(summary: Summary) -> None:
    _, body = parts(model_card(summary))
    assert re.findall("^## (.*)$", body, re.MULTILINE) == [
        "Use", "Intended use", "Limits", "Training data", "Metrics",
    ]  # fmt: skip
    assert "not human ratings" in body
    assert "Its world is tiny" in body
    assert "284 in round 0" in body
    table = [line for line in body.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {7}
    assert any(line.startswith("| Emo-A (own classifier) ↑ | 31.2") for line in table)


def test_a_model_that_keeps_features_of_real_images_says_so(values: dict[str, Any]) -> None:
    assert "stay near real ones" not in model_card(Summary.model_validate(values))
    values["config"]["emotion_space"] = {"kind": "neighbours"}
    assert "stay near real ones" in model_card(Summary.model_validate(values))


def test_its_code_is_python_and_loads_the_folder(summary: Summary) -> None:
    (code,) = re.findall("```python\n(.*?)```", model_card(summary), re.DOTALL)
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert {"UniEmo.from_pretrained", "model.understand", "model.generate"} <= calls


def test_text_from_data_cannot_become_markup(values: dict[str, Any]) -> None:
    values["dataset"]["name"] = "a\n---\n# <b>x</b> [y](z) `c` | d: {e}"
    front, body = parts(model_card(Summary.model_validate(values)))
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "a --- # <b>x</b> [y](z) `c` | d: {e}"
    assert "<b>" not in body
    assert "\\[y\\](z) \\`c\\` \\| d: {e}" in body
    assert len(re.findall("^# ", body, re.MULTILINE)) == 1


def test_photographs_have_their_own_limits_and_need_no_generation(values: dict[str, Any]) -> None:
    values["config"]["data"] |= {"kind": "emoset", "root": "photos"}
    values["dataset"] = {"name": "photos", "sizes": {"train": 10}}
    values["rounds"] = [values["rounds"][0] | {"generation": None, "filter": None}]
    front, body = parts(model_card(Summary.model_validate(values)))
    assert len(front["model-index"][0]["results"]) == 1
    assert "EmoSketch" not in body
    assert "annotators" in body
