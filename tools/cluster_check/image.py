"""The Dockerfile and the build context, without Docker."""

import json
import re
import subprocess
from pathlib import Path

import pathspec

from tools.cluster_check.faults import Fault, tool

TIMEOUT_S = 60
_COPY = re.compile(r"^(?:COPY|ADD)\s+(.*)$", re.I | re.M)


def check_copies(dockerfile: Path, root: Path) -> list[Fault]:
    """Files that COPY names and that are not there, or that .dockerignore keeps out of the build."""
    ignored = _ignored(root / ".dockerignore")
    faults = []
    for words in _COPY.findall(re.sub(r"\\\n", " ", dockerfile.read_text())):
        if "--from=" in words:
            continue
        *sources, _ = [word for word in words.split() if not word.startswith("--")]
        for source in sources:
            where = f"COPY {source}"
            found = sorted(root.glob(source.rstrip("/"))) if source not in (".", "./") else [root]
            if not found:
                faults.append(Fault(dockerfile.name, where, "there is no such file"))
            elif all(ignored.match_file(_context_path(path, root)) for path in found):
                faults.append(Fault(dockerfile.name, where, ".dockerignore keeps it out of the build"))
    return faults


def _context_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root else "."


def _ignored(file: Path) -> pathspec.GitIgnoreSpec:
    """Docker's patterns start at the root of the context, unlike Git's."""
    lines = file.read_text().splitlines() if file.is_file() else []
    patterns = []
    for line in filter(None, (line.strip() for line in lines)):
        if line.startswith("#"):
            continue
        is_kept, pattern = line.startswith("!"), line.removeprefix("!")
        anchored = pattern if pattern.startswith("**") else f"/{pattern.lstrip('/')}"
        patterns.append(f"!{anchored}" if is_kept else anchored)
    return pathspec.GitIgnoreSpec.from_lines(patterns)


def lint(dockerfile: Path) -> list[Fault]:
    """What hadolint says.

    Raises:
        NotCheckedError: hadolint is not installed.
    """
    command = [
        tool("hadolint", "pip install -e '.[cluster]'"),
        "--format",
        "json",
        "--no-fail",
        str(dockerfile),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        return [Fault(dockerfile.name, "hadolint", done.stderr.strip())]
    return [
        Fault(dockerfile.name, f"line {found['line']}", f"{found['code']} {found['message']}")
        for found in json.loads(done.stdout)
    ]
