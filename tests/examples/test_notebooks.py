"""The notebooks of `examples/`: what is stored in them is clean, and they run from start to end."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 1_000_000
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|var|usr|opt|Users|private)/|[A-Z]:\\\\")
PICTURES = {"understand_and_attention": 2, "generate_mix_transfer": 3, "shards_in_duckdb_and_pandas": 2}


def texts(output: dict) -> Iterator[str]:
    """Every text of an output; pictures are no text."""
    for value in (output.get("text", []), *output.get("data", {}).values()):
        yield "".join(value)


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def printed(notebook: dict) -> str:
    return "\n".join(text for output in outputs(notebook) for text in texts(output))


def pictures(notebook: dict) -> int:
    return sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook))


def flaws(notebook: dict) -> list[str]:
    """What a reader should not meet in the stored outputs."""
    found = []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("cells were not run once each from top to bottom")
    for output in outputs(notebook):
        if output["output_type"] == "error" or output.get("name") == "stderr":
            found.append(f"error or warning: {output}")
    if match := MACHINE.search(printed(notebook)):
        found.append(f"path of a machine: {match[0]}")
    if set(notebook["metadata"]) != {"kernelspec", "language_info"}:
        found.append(f"metadata: {sorted(notebook['metadata'])}")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("another kernel than python3")
    found += [f"metadata of a cell: {cell['metadata']}" for cell in notebook["cells"] if cell["metadata"]]
    return found


def test_all_notebooks_are_known():
    assert {path.stem for path in NOTEBOOKS} == PICTURES.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs(path: Path):
    notebook = json.loads(path.read_text())
    assert flaws(notebook) == []
    assert pictures(notebook) == PICTURES[path.stem]
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    ("output", "flaw"),
    [
        ({"output_type": "stream", "name": "stderr", "text": ["UserWarning: no"]}, "error or warning"),
        (
            {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []},
            "error or warning",
        ),
        ({"output_type": "stream", "name": "stdout", "text": ["in ", "/tmp/abc/run"]}, "path of a machine"),
        (
            {"output_type": "execute_result", "data": {"text/plain": ["'/home/me'", "/x"]}},
            "path of a machine",
        ),
    ],
)
def test_a_flaw_is_found(output: dict, flaw: str):
    notebook = json.loads(NOTEBOOKS[0].read_text())
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["outputs"].append(output)
    assert [found.partition(":")[0] for found in flaws(notebook)] == [flaw]


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a notebook in a copy of `examples/`, where no run folder is near."""
    from tools.notebooks import execute

    folder = tmp_path / "examples"
    folder.mkdir()
    for path in (*NOTEBOOKS, *EXAMPLES.glob("*.py")):
        shutil.copy(path, folder)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    )

    def run(name: str) -> dict:
        notebook = execute(folder / f"{name}.ipynb")
        assert flaws(notebook) == []
        assert pictures(notebook) == PICTURES[name]
        return notebook

    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_understand_and_attention(executed):
    text = printed(executed("understand_and_attention"))
    assert int(re.search(r"(\d+) of 200 emotions are as labelled", text)[1]) > 120
    assert "grid of patches: (8, 8)" in text
    answers = re.findall(r"^(?:path|PIL image|bytes|array) +(\w+ [\d.]+)$", text, flags=re.MULTILINE)
    assert len(answers) == 4
    assert len(set(answers)) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_generate_mix_transfer(executed):
    text = printed(executed("generate_mix_transfer"))
    assert "32 pictures" in text
    seven, again, second, eight = re.findall(r"\b[0-9a-f]{16}$", text, flags=re.MULTILINE)
    assert seven == again == second != eight


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shards_in_duckdb_and_pandas(executed):
    text = printed(executed("shards_in_duckdb_and_pandas"))
    assert "no finished run in RUN: made a small one" in text
    assert "4 shards of images, 4 of scores, 4 of verdicts" in text
    kept = int(re.search(r"kept (\d+) of 48 images", text)[1])
    assert 0 < kept < 48
