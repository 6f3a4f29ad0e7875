"""The examples of the README and of docs/serving.md run unchanged except for the address."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.service.served import Served
from uniemo_ray.service.workers.model_registry import ModelRegistry

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
PAGES = {"README.md": "## The service", "docs/serving.md": "## The API in five calls"}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")]


@pytest.fixture(scope="module")
def url(model_folder, tmp_path_factory) -> Iterator[str]:
    registry = ModelRegistry(models={"default": str(model_folder)})
    with Served(registry, tmp_path_factory.mktemp("generations")) as url:
        yield url


def examples(page: str, language: str) -> list[str]:
    """Code blocks of a page's section that call the service."""
    _, _, rest = (ROOT / page).read_text().partition(f"\n{PAGES[page]}\n")
    section = rest.partition("\n## ")[0]
    found = [block for block in re.findall(rf"```{language}\n(.*?)```", section, re.S) if ADDRESS in block]
    return [block for block in found if "make serve" not in block]


def answers(text: str) -> list[dict]:
    """Parse JSON objects that follow one another."""
    found = []
    while text := text.strip():
        answer, end = json.JSONDecoder().raw_decode(text)
        found.append(answer)
        text = text[end:]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_they_stand(url, page, tmp_path):
    outputs = {}
    for language, program in {"bash": ["bash", "-euo", "pipefail"], "python": [sys.executable]}.items():
        (block,) = examples(page, language)
        command = [*program, "-c", block.replace(ADDRESS, url)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        outputs[language] = done.stdout
    with Image.open(tmp_path / "awe.png") as picture:
        assert picture.format == "PNG"
    assert "amusement" in outputs["python"]
    direct, _, events = outputs["bash"].partition("event: queued")
    seen, *made = answers(direct)
    assert seen["results"][0]["top"] in seen["results"][0]["emotions"]
    if page == "docs/serving.md":
        assert [len(answer["images"]) for answer in made] == [2]
        assert "event: done" in events
