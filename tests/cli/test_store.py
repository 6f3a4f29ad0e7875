"""`uniemo store` on a run folder with damage."""

import pytest
from typer.testing import CliRunner

from tests.store.test_verify import damage, make_run, submit
from uniemo_ray.cli.app import app

runner = CliRunner()


def test_verify_repair_submit_verify(tmp_path):
    uri = str(tmp_path / "run")
    run = make_run(uri)
    assert runner.invoke(app, ["store", "verify", uri]).exit_code == 0
    damage(run)
    found = runner.invoke(app, ["store", "verify", uri])
    assert found.exit_code == 1
    assert "torn: artefacts/generate-" in found.stdout
    assert "5 shards in 1 folders, 14 rows" in found.stdout
    mended = runner.invoke(app, ["store", "repair", uri])
    assert "4 removed: submit the job again to make them anew" in mended.stdout
    submit(run)
    assert runner.invoke(app, ["store", "verify", uri]).exit_code == 0


@pytest.mark.parametrize("action", [["store", "verify"], ["store", "repair"]])
def test_no_run_is_one_clear_line(tmp_path, action):
    result = runner.invoke(app, [*action, str(tmp_path / "none")])
    assert "there is no run folder" in str(result.exception)


def test_regenerate_names_an_unknown_image(tmp_path):
    uri = str(tmp_path / "run")
    make_run(uri)
    result = runner.invoke(app, ["regenerate", uri, "nothing"])
    assert "holds no generated image 'nothing'" in str(result.exception)
