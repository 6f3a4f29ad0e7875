"""The Dockerfile and what a build of it sees."""

import re

import pytest

from tests.cluster.conftest import lines
from tools.cluster_check.command import ROOT
from tools.cluster_check.faults import NotCheckedError
from tools.cluster_check.image import check_copies, lint

DOCKERFILE = ROOT / "cluster/image/Dockerfile"


def test_every_copied_file_is_in_the_build():
    assert lines(check_copies(DOCKERFILE, ROOT)) == ""
    copied = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.M)
    assert len(copied) == 5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY runs /opt/runs", "COPY runs: there is no such file"),
        ("COPY --chown=1000 secret.txt a.txt \\\n  /opt/", "COPY secret.txt: .dockerignore keeps it out"),
        ("ADD package/__pycache__ /opt/", "COPY package/__pycache__: .dockerignore keeps it out"),
        ("COPY a.txt package /opt/", ""),
        ("COPY --from=build /opt/nothing /opt/", ""),
    ],
)
def test_a_copied_file_that_is_missing_or_ignored_is_found(line, expected, tmp_path):
    (tmp_path / "package/__pycache__").mkdir(parents=True)
    for name in ("secret.txt", "a.txt", "package/module.py"):
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text("# all but these\n*\n!a.txt\n!package\n**/__pycache__\n")
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\n{line}\n")
    found = lines(check_copies(tmp_path / "Dockerfile", tmp_path))
    assert expected in found
    assert bool(found) == bool(expected)


def test_hadolint_finds_bad_habits(tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM python:latest\nRUN apt-get install gcc\nRUN pip install numpy\n"
    )
    try:
        assert lines(lint(DOCKERFILE)) == ""
        found = lines(lint(tmp_path / "Dockerfile"))
    except NotCheckedError as error:
        pytest.skip(str(error))
    assert all(code in found for code in ("DL3007", "DL3014", "DL3042"))


def test_both_targets_end_as_a_user_without_rights():
    stages = DOCKERFILE.read_text().split("\nFROM ")
    for target in ("cpu", "cuda"):
        (stage,) = [stage for stage in stages if stage.startswith(f"system AS {target}\n")]
        assert stage.rstrip().endswith("USER 1000:1000")
