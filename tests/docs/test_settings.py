"""The settings reference says of every setting what it is, its unit and its source."""

import re

import pytest

from tools.docs.settings import Setting, sections, settings_page
from uniemo_ray.config import Config

LEAVES = {leaf.key: leaf for _, leaves in sections(Config).values() for leaf in leaves}


def describe(key: str) -> str:
    model = Config
    *path, last = key.split(".")
    for part in path:
        model = model.model_fields[part].annotation
    return model.model_fields[last].description or ""


def is_number(leaf: Setting) -> bool:
    return bool(re.match(r"(int|float)\b", leaf.values))


def test_all_settings_are_found():
    assert {"seed", "filter.eta", "stage2.rates.fusion", "resources.actors"} <= set(LEAVES)
    assert len(LEAVES) > 120


@pytest.mark.parametrize("key", LEAVES)
def test_a_setting_is_described(key):
    leaf = LEAVES[key]
    assert len(leaf.text.split()) >= 2, leaf
    assert leaf.text.endswith("."), leaf
    assert leaf.source, f"{key} does not name its source"
    if is_number(leaf):
        assert "Unit: " in describe(key), f"{key} does not name its unit"


def test_the_page_shows_defaults_units_and_sources():
    page = settings_page()
    rows = {line.split(" | ")[0]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows["| `filter.eta`"].startswith("| `filter.eta` | `20` |")
    assert rows["| `filter.eta`"].endswith("| percent | paper, table VII |")
    assert "| `0.01` |" in rows["| `stage2.rates.fusion`"]
    assert "at most 100" in rows["| `filter.delta`"]
