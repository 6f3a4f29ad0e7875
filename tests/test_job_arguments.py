"""The command line that all jobs share."""

import sys

import pytest

from uniemo_ray.jobs.command_line import read_arguments


def test_wait_for_lease_is_a_setting_of_the_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["job", "--set", "seed=7", "--wait-for-lease", "900"])
    config = read_arguments("help")
    assert config.resources.wait_for_lease_s == 900
    assert config.seed == 7


def test_a_job_does_not_wait_unless_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["job"])
    assert read_arguments("help").resources.wait_for_lease_s == 0


@pytest.mark.parametrize("text", ["soon", ""])
def test_a_time_that_is_none_is_refused(monkeypatch, text, capsys):
    monkeypatch.setattr(sys, "argv", ["job", "--wait-for-lease", text])
    with pytest.raises(SystemExit):
        read_arguments("help")
    assert "--wait-for-lease" in capsys.readouterr().err
