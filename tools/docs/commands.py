"""The command line: the reference pages, and what a test needs to check the commands that the pages show."""

import contextlib
import io
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

from tools.docs.tables import code, table
from uniemo_ray.cli.app import app
from uniemo_ray.cli.sent import job_names

ROOT = Path(__file__).parents[2]
PROGRAMS = ("uniemo_ray.head", "uniemo_ray.service.local", "uniemo_ray.service.tokens")
"""Modules with a command line of their own that users start with `python -m`."""
INTRO = """# The `uniemo` command

This page is made from the command itself; `uniemo COMMAND --help` shows the same text. Bad input ends a
command with one line on standard error and exit code 2.

"""
JOBS_INTRO = """# Jobs and programs

A job runs on a Ray cluster. `uniemo submit NAME -- OPTIONS` submits it; `ray job submit --working-dir . --
python jobs/NAME.py OPTIONS` does the same by hand. This page is made from the jobs' own help texts.

"""


def command_pages() -> dict[str, str]:
    """Path in the site -> text."""
    text = INTRO
    for name, command in walk(typer.main.get_command(app)):
        text += _command(name, command)
    jobs = JOBS_INTRO
    for job in job_names():
        jobs += f"## {job}\n\n```text\n{help_of(f'uniemo_ray.jobs.{job}')}```\n\n"
    for module in PROGRAMS:
        jobs += f"## python -m {module}\n\n```text\n{help_of(module)}```\n\n"
    return {"reference/cli.md": text, "reference/jobs.md": jobs}


def walk(command: Any, name: str = "uniemo") -> Iterator[tuple[str, Any]]:
    """Every command below `command` with its full name; groups themselves only when they have no commands."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
    for key, child in (inner or {}).items():
        yield from walk(child, f"{name} {key}")


@cache
def help_of(module: str) -> str:
    """What `python -m MODULE --help` prints."""
    sys.modules.pop(module, None)  # runpy warns of a second copy
    output, arguments = io.StringIO(), sys.argv
    sys.argv = [f"python -m {module}", "--help"]
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = arguments
    return output.getvalue()


def long_options(command: Any) -> set[str]:
    """`--options` of a command of `walk`, `--help` among them."""
    return {"--help"} | {option for p in command.params for option in (*p.opts, *p.secondary_opts)}


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name != "argument"]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(_argument(p) for p in arguments)])
    text = f"## {name}\n\n```text\n{usage}\n```\n\n{_prose(command.help or '')}\n\n"
    if name == "uniemo head":
        return text + f"```text\n{help_of('uniemo_ray.head')}```\n\n"
    rows = [[code(", ".join([*p.opts, *p.secondary_opts])), _default(p), p.help or ""] for p in options]
    rows = [[code(_argument(p)), "", p.help or ""] for p in arguments] + rows
    return text + (table(["Argument or option", "Default", "Meaning"], rows) if rows else "")


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _default(parameter: Any) -> str:
    value = parameter.default
    is_plain = isinstance(value, (str, int, float, bool, Path)) and value is not None
    return code(str(value)) if is_plain else ("required" if parameter.required else "")


def _prose(text: str) -> str:
    """Help text with its examples, which start with a control character, as a code block."""
    text, _, examples = text.partition("\b")
    lines = [line for line in examples.strip("\n").splitlines()[1:] if line.strip()]
    block = "\n".join(re.sub(r"^ {2}", "", line) for line in lines)
    return text.strip() + (f"\n\n```bash\n{block}\n```" if block else "")
