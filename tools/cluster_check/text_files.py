"""YAML and shell as text."""

import json
import subprocess
from pathlib import Path

from tools.cluster_check.faults import Document, Fault, library, tool

TIMEOUT_S = 60
YAML_STYLE = """
extends: default
rules:
  line-length: {max: 125}
  document-start: disable
  braces: {max-spaces-inside: 0}
  comments: {min-spaces-from-content: 1}
  comments-indentation: disable
  truthy: {check-keys: false}
"""


def check_yaml(path: Path, file: str) -> list[Fault]:
    """What yamllint says.

    Raises:
        NotCheckedError: yamllint is not installed.
    """
    library("yamllint")
    linter, config = library("yamllint.linter"), library("yamllint.config")
    problems = linter.run(path.read_text(), config.YamlLintConfig(YAML_STYLE), str(path))
    return [Fault(file, f"line {problem.line}", problem.message) for problem in problems]


def check_shell(text: str, file: str) -> list[Fault]:
    """What shellcheck says of Bash commands.

    Raises:
        NotCheckedError: shellcheck is not installed.
    """
    program = tool("shellcheck", "pip install -e '.[cluster]'")
    command = [program, "--shell=bash", "--severity=warning", "--format=json", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode > 1:
        return [Fault(file, "shellcheck", done.stderr.strip())]
    return [Fault(file, f"line {found['line']}", found["message"]) for found in json.loads(done.stdout)]


def launcher_commands(config: Document) -> str:
    """The commands of a launcher file as one script."""
    keys = ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return "\n".join(command for key in keys for command in config.get(key) or []) + "\n"
