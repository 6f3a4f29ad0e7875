"""Files of Ray's launcher: as they are, and with each planted fault."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import lines
from tests.cluster.test_manifests import change
from tools.cluster_check.command import ROOT
from tools.cluster_check.faults import NotCheckedError
from tools.cluster_check.launcher import check_launcher
from tools.cluster_check.pools import pools_of_run
from tools.cluster_check.text_files import check_shell, launcher_commands
from uniemo_ray.settings_file import load_config

FILES = sorted(ROOT.glob("cluster/launcher/*.yaml"))
POOLS = pools_of_run(load_config(str(ROOT / "cluster/kuberay/base/run.yaml"), []))
AWS = yaml.safe_load((ROOT / "cluster/launcher/aws.yaml").read_text())
NODE = "available_node_types/generate/node_config"


def check(config: dict, folder: Path) -> str:
    path = folder / "aws.yaml"
    path.write_text(yaml.safe_dump(config))
    return lines(check_launcher(path, POOLS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_files_are_right(path):
    assert lines(check_launcher(path, POOLS)) == ""


def test_both_clouds_have_the_same_types():
    types = [yaml.safe_load(path.read_text())["available_node_types"] for path in FILES]
    assert len(types) == 2
    labels = [
        {name: (t["labels"], t["max_workers"], t.get("priority")) for name, t in found.items()}
        for found in types
    ]
    assert labels[0] == labels[1]
    assert list(labels[0]) == ["head", "data", "train", "generate", "generate-ondemand"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("available_node_types/data/lables", {}, "lables"),
        ("idle_timeout", 5, "idle_timeout"),
        (f"{NODE}/InstanceTypes", "g6.2xlarge", "InstanceTypes: EC2 has no such key"),
        (f"{NODE}/InstanceMarketOptions/MarketTyp", "spot", "MarketTyp: EC2 has no such key"),
        (f"{NODE}/InstanceMarketOptions/MarketType", "spto", "MarketType: spto is none of"),
        (f"{NODE}/BlockDeviceMappings/0/Ebs/VolumeSizeGb", 1, "VolumeSizeGb: EC2 has no such key"),
        (f"{NODE}/BlockDeviceMappings/0/Ebs/Encrypted", False, "Ebs.Encrypted is not true"),
        (f"{NODE}/MetadataOptions", None, "HttpTokens is not required"),
        (f"{NODE}/ImageId", None, "node_config has no ImageId"),
        ("available_node_types/generate/resources/memory", None, "generate: resources has no memory"),
        (
            "available_node_types/generate/resources/memory",
            28_000_000_000,
            "memory 28 GB is more than g6.2xlarge offers (22 GB)",
        ),
        ("available_node_types/generate/resources/CPU", 4, "pool generate: one takes 6 CPUs"),
        ("available_node_types/train/labels", {"a": "b"}, "there are no machines with uniemo/pool=train"),
        ("available_node_types/head/resources/CPU", 4, "the head takes no work"),
        ("setup_commands", None, "setup_commands must be []"),
        (
            "head_start_ray_commands",
            ["ray start --head --dashboard-host=0.0.0.0"],
            "--dashboard-host=127.0.0.1",
        ),
        ("head_start_ray_commands", ["ray start --head"], "--autoscaling-config is missing"),
        ("docker/run_options", [], "RAY_AUTH_MODE=token is missing"),
        ("file_mounts", {}, "no .ray/auth_token"),
    ],
)
def test_a_fault_is_found(path, value, expected, tmp_path):
    assert check(AWS, tmp_path) == ""
    assert expected in check(change(AWS, path, value), tmp_path)


def test_a_word_about_shell_is_passed_on():
    config = {"head_start_ray_commands": ["ray stop", 'if [ "$A" = 1 ]; then ray start']}
    try:
        found = lines(check_shell(launcher_commands(config), "f"))
        clean = lines(check_shell(launcher_commands(AWS), "f"))
    except NotCheckedError as error:
        pytest.skip(str(error))
    assert "f: line 2: " in found
    assert clean == ""
