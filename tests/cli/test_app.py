"""The command as a whole: help, version, and errors as one line."""

import errno

import pytest
from typer.testing import CliRunner

from uniemo_ray import __version__
from uniemo_ray.cli import app as app_module
from uniemo_ray.cli import main

runner = CliRunner()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["uniemo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_version_names_the_package_and_its_libraries(monkeypatch, capsys):
    assert run_main(monkeypatch, "version") == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["uniemo_ray"] == __version__
    assert lines["ray"].startswith("2.")
    assert lines["torch"] != "not installed"


@pytest.mark.parametrize(
    "command",
    [
        ["understand"],
        ["generate"],
        ["plan"],
        ["fetch"],
        ["submit"],
        ["serve"],
        ["data", "make-sketch"],
        ["data", "check"],
    ],
)
def test_every_help_has_an_example(command):
    result = runner.invoke(app_module.app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"uniemo {' '.join(command)} " in result.output


def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys):
    assert run_main(monkeypatch, "generate", "joy", "--model", "tiny") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: unknown emotion 'joy'")
    assert captured.err.count("\n") == 1


def test_missing_file_is_one_line_with_its_name(monkeypatch, capsys, tmp_path):
    assert run_main(monkeypatch, "understand", str(tmp_path / "no.png"), "--model", "nowhere") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'no.png'}: No such file or directory\n"


def test_unknown_option_is_code_2(monkeypatch, capsys):
    assert run_main(monkeypatch, "version", "--loud") == 2
    assert "No such option: --loud" in capsys.readouterr().err


def test_an_error_without_a_file_name_keeps_its_text(monkeypatch, capsys):
    def fail(*, args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(app_module, "app", fail)
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--help"], "usage: uniemo head", 0),
        ([], "the following arguments are required: ACTION", 2),
        (["--state", "STATE", "status"], "error: no Ray head runs for STATE", 2),
        (["--state", "STATE", "run", "--"], "error: run expects a command", 2),
        (["--state", "STATE", "stop"], "no Ray head was running", 0),
        (["dance"], "invalid choice: 'dance'", 2),
    ],
)
def test_the_local_head_has_its_own_words_and_exit_codes(
    monkeypatch, capsys, tmp_path, arguments, words, code
):
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, "head", *arguments) == code
    captured = capsys.readouterr()
    assert words in captured.out + captured.err
    assert captured.err.count("\n") == 1 or not captured.err.startswith("error: ")
