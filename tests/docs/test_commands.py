"""Every command that README, CONTRIBUTING and docs/ show exists, with its options, settings and names."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from pydantic import BaseModel

from tests.docs.shown import PAGES, ROOT, in_line, settings
from tests.docs.shown import commands as shown_commands
from tools.docs.commands import help_of, long_options, walk
from uniemo_ray.cli.app import app
from uniemo_ray.cli.sent import find_entrypoint
from uniemo_ray.config import Config
from uniemo_ray.head import command as head_command
from uniemo_ray.settings_file import PRESETS

COMMANDS = dict(walk(typer.main.get_command(app)))
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS}
OF_THE_READER = ("my.yaml", "variant.yaml", "FILE", "NAME")
"""Names that stand for a file or name of the reader's."""
MAKEFILE = (ROOT / "Makefile").read_text()


class WrongError(Exception):
    """A shown command that does not exist as it is shown."""


def check(words: tuple[str, ...]) -> None:
    program, *rest = words
    {"uniemo": check_uniemo, "make": check_make, "ray": check_ray, "serve": check_serve}.get(
        program, check_python
    )(rest)


def check_uniemo(words: list[str]) -> None:
    name = "uniemo"
    while words and name in GROUPS and not words[0].startswith("-") and words[0] not in ("COMMAND", "..."):
        name, words = f"{name} {words[0]}", words[1:]
        if name not in GROUPS and name not in COMMANDS:
            raise WrongError(f"there is no command {name!r}")
    if name not in COMMANDS:
        return  # a group by itself
    if name == "uniemo head":
        return check_head(words)
    own, _, rest = split(words)
    check_options(own, long_options(COMMANDS[name]), prefix="data." if name == "uniemo data check" else "")
    if name == "uniemo submit":
        check_submitted(own, rest)
    return None


def check_submitted(own: list[str], rest: list[str]) -> None:
    """`uniemo submit [OPTIONS] JOB -- ...`: the first word that is no option and no option's value."""
    takes_value = {
        o for p in COMMANDS["uniemo submit"].params for o in p.opts if not getattr(p, "is_flag", 0)
    }
    positional = [
        word
        for before, word in zip(["", *own], own, strict=False)
        if not word.startswith("-") and before not in takes_value
    ]
    if positional:
        check_job(positional[0], rest)


def check_job(job: str, options: list[str]) -> None:
    name = Path(job).stem if job.endswith(".py") else job
    if name in ("NAME", "JOB"):
        return
    try:
        find_entrypoint(job, ROOT)
    except ValueError as error:
        raise WrongError(str(error)) from None
    check_options(options, help_options(f"uniemo_ray.jobs.{name}"))


def check_head(words: list[str]) -> None:
    own, _, rest = split(words)
    check_options(own, help_options("uniemo_ray.head"))
    if own and "--help" not in own:
        try:
            head_command.parse(words)
        except SystemExit:
            raise WrongError(f"uniemo head does not take {' '.join(own)!r}") from None
    if rest:
        check(tuple(rest))


def check_make(words: list[str]) -> None:
    for word in words:
        variable, is_setting, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if is_setting else rf"^{re.escape(word)}:.*## "
        if word != "TARGET" and not re.search(pattern, MAKEFILE, re.M):
            raise WrongError(f"the Makefile has no {word!r}")


def check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    command, names = cli, [word for word in words if not word.startswith("-")]
    while names and getattr(command, "commands", None):
        if names[0] not in command.commands:
            raise WrongError(f"ray has no command {names[0]!r}")
        command, names = command.commands[names[0]], names[1:]
    own, _, rest = split(words)
    check_options(own, long_options(command))
    if rest:
        check(tuple(rest))


def check_serve(words: list[str]) -> None:
    action, *rest = words or ["run"]
    if action not in ("run", "deploy", "status", "start", "shutdown"):
        raise WrongError(f"serve has no command {action!r}")
    given = [word for word in rest if not word.startswith("-")] if action in ("run", "deploy") else []
    for target in given[:1]:
        module, _, name = target.partition(":")
        is_there = hasattr(importlib.import_module(module), name) if name else (ROOT / target).is_file()
        if not is_there:
            raise WrongError(f"nothing to serve at {target!r}")
    if len(given) > 1:
        build = getattr(importlib.import_module(module), name)
        for argument in given[1:]:
            check_key(argument.partition("=")[0], get_type_hints(build)["args"])


def check_python(words: list[str]) -> None:
    if words[:1] == ["-m"] and words[1].startswith("uniemo_ray"):
        if find_spec(words[1]) is None:
            raise WrongError(f"there is no module {words[1]}")
        check_options(words[2:], help_options(words[1]))
    elif words and words[0].startswith("jobs/"):
        check_job(words[0], words[1:])
    elif words and words[0].endswith(".py") and not (ROOT / words[0]).is_file():
        raise WrongError(f"there is no script {words[0]}")


def check_options(words: list[str], known: set[str], *, prefix: str = "") -> None:
    for option, value in zip(words, [*words[1:], ""], strict=False):
        name, _, joined = option.partition("=")
        if not option.startswith("--") or option == "--":
            continue
        if name not in known:
            raise WrongError(f"there is no option {name}; there are {', '.join(sorted(known))}")
        value = joined or value
        if name == "--set":
            check_key(prefix + value.partition("=")[0], Config)
        if name in ("--config", "--preset") and value not in OF_THE_READER:
            is_there = (ROOT / value).is_file() or (PRESETS / f"{value}.yaml").is_file()
            if not is_there:
                raise WrongError(f"there is no {name.removeprefix('--')} {value!r}")


def check_key(key: str, model: type[BaseModel]) -> None:
    if key in ("preset", "a.b", "A.B"):
        return
    for part in key.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            raise WrongError(f"there is no setting {key!r}")
        model = fields[part].annotation


def split(words: list[str]) -> tuple[list[str], str, list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], "--", words[at + 1 :]


def help_options(module: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", help_of(module)))


@pytest.mark.parametrize("page", PAGES)
def test_every_shown_command_exists(page):
    wrong = []
    for shown in shown_commands(page):
        try:
            check(shown.words)
        except WrongError as error:
            wrong.append(f"{' '.join(shown.words)}: {error}")
    assert not wrong, f"{page}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_every_named_setting_exists(page):
    wrong = []
    for key in settings(page):
        if key.partition(".")[0] in Config.model_fields and not key.endswith(
            (".py", ".json", ".yaml", ".html")
        ):
            try:
                check_key(key, Config)
            except WrongError as error:
                wrong.append(str(error))
    assert not wrong, f"{page}: " + "; ".join(wrong)


def test_the_pages_show_commands_of_every_kind():
    programs = {shown.words[0] for page in PAGES for shown in shown_commands(page)}
    assert {"uniemo", "make", "ray", "serve", "python"} <= programs
    assert len([shown for page in PAGES for shown in shown_commands(page)]) > 80


@pytest.mark.parametrize(
    "line",
    [
        "uniemo sumbit feedback_loop",
        "uniemo store check runs/demo",
        "uniemo generate awe --modle tiny",
        "uniemo submit feedback_lop -- --config demo",
        "uniemo submit feedback_loop -- --config dmeo",
        "uniemo submit feedback_loop -- --set stage1.epoch=3",
        "uniemo data check DIR --set agreements=5",
        'eval "$(uniemo head enviroment)"',
        "uniemo head run -- uniemo submit nothing",
        "make dmeo",
        "make demo RUNS=here",
        "python -m uniemo_ray.service.token add ann",
        "python -m uniemo_ray.service.tokens add ann --flie x",
        "python jobs/feedback.py",
        "ray job submit --working-dir . -- python jobs/nothing.py",
        "ray job submit --workingdir . -- python jobs/ingest.py",
        "serve run uniemo_ray.service.app:build_ap",
        "serve run uniemo_ray.service.app:build_app modle=tiny",
        "serve deploy serve/configs.yaml",
        "cd somewhere && make dmeo",
    ],
)
def test_a_wrong_command_is_found(line):
    (*_, words) = in_line(line)
    with pytest.raises(WrongError):
        check(words)
