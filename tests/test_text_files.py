"""Text files are UTF-8 whatever the machine's locale: clusters and containers run with others."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

PACKAGE = Path(__file__).parents[1] / "uniemo_ray"
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""A locale of ASCII alone, without Python's own remedies; a Latin-1 locale of a cluster has none either."""


def reads_as_the_locale_says(source: str) -> Iterator[int]:
    """Lines where a file is opened as text and no encoding is named."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        is_open = name in ("open", "fdopen") and any(set(m) <= set("rwax+t") for m in modes if m)
        if name in ("read_text", "write_text") or is_open:
            yield node.lineno


def test_the_search_finds_what_it_should() -> None:
    assert list(reads_as_the_locale_says("p.read_text()\nopen(p, 'w')\nos.fdopen(f, 'w')")) == [1, 2, 3]
    assert list(reads_as_the_locale_says("p.read_text(encoding='utf-8')\nopen(p, 'rb')")) == []


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_every_text_file_has_an_encoding(path: Path) -> None:
    assert list(reads_as_the_locale_says(path.read_text(encoding="utf-8"))) == []


@pytest.mark.slow
def test_a_picture_is_understood_in_a_locale_of_ascii(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "green").save(tmp_path / "größe.jpg")
    done = subprocess.run(
        [sys.executable, "-m", "uniemo_ray.cli", "understand", "größe.jpg", "--model", "tiny"],
        cwd=tmp_path,
        env=os.environ | PLAIN | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"tive)" in done.stdout.splitlines()[0]
