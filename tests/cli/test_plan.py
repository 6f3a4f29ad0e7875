"""`uniemo plan`: the table for people, the JSON for programs, and the exit code for scripts."""

import json

from typer.testing import CliRunner

from uniemo_ray.cli.app import app

runner = CliRunner()
FAST = ["plan", "--config", "jobs/configs/demo.yaml", "--no-activations"]


def test_the_table_shows_parameters_memory_and_work():
    result = runner.invoke(app, [*FAST, "--images-per-second", "2", "--price", "1.5"])
    assert result.exit_code == 0, result.output
    for words in ("denoiser", "ZeRO 1 *", "activations (estimate)", "understanding-2", "GPU hours, cost"):
        assert words in result.output
    assert "warning" not in result.output


def test_json_and_exit_code_of_what_does_not_fit():
    result = runner.invoke(app, [*FAST, "--gpus", "1", "--gpu-memory", "1", "--json"])
    assert result.exit_code == 1
    plan = json.loads(result.output)
    assert plan["gpus"] == 1
    assert plan["memory"][0]["batch_per_gpu"] == 64
    assert "stage 1 needs about" in plan["warnings"][0]


def test_every_gpu_must_get_an_image(tmp_path):
    result = runner.invoke(app, [*FAST, "--gpus", "65"])
    assert "stage1.batch_size 64 is less than one pass of 1 images for each of 65 workers" in str(
        result.exception
    )
    result = runner.invoke(app, [*FAST, "--gpus", "3"])
    assert result.exit_code == 0, result.output


def test_a_type_of_gpu_gives_hours_and_its_memory():
    result = runner.invoke(app, [*FAST, "--gpu-type", "L4", "--json"])
    plan = json.loads(result.output)
    assert plan["gpu_memory"] == 24e9
    assert plan["hours"]["gpu"] == "l4"
    assert min(plan["hours"][name] for name in ("training", "generation", "frozen")) > 0
    shown = runner.invoke(app, [*FAST, "--gpu-type", "l4"]).output
    assert "GPU hours, estimated at 40% of the peak rate of one l4" in shown


def test_pools_are_counted_by_machine():
    pools = "resources.pools={train: {labels: {a: b}, memory_gb: 2}}"
    result = runner.invoke(app, [*FAST, "--set", pools, "--per-machine", "train=2", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["pools"][3]["machines"] == 1
    result = runner.invoke(app, [*FAST, "--per-machine", "train"])
    assert "--per-machine train: expected POOL=NUMBER" in str(result.exception)
