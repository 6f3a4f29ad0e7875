"""Addresses with `~`, and addresses that lost a character on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uniemo_ray.addresses import expand, expand_arguments, local_path, locate
from uniemo_ray.config import Config
from uniemo_ray.inference.uniemo import UniEmo
from uniemo_ray.models.clip import find_clip_config
from uniemo_ray.models.pipeline_folder import find_pipeline
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.filesystem import open_store

MANGLED = [
    "s3:/bucket/run",
    "s3:bucket/run",
    "S3:/b/x",
    "s3:\\b\\x",
    "s3//bucket/run",
    "gs:/b/x",
    "file:/x",
    str(Path("s3://b/x")),
]
SETTINGS = [
    "run",
    "data.root",
    "encoder.clip",
    "encoder.clip_pretrained",
    "diffusion.model",
    "evaluation.model",
    "evaluation.weights_dir",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def value(config: Config, setting: str) -> object:
    found: object = config
    for name in setting.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_that_is_an_address_knows_the_home_folder(home: Path, setting: str) -> None:
    assert value(load_config(None, [f"{setting}=~/a b"]), setting) == f"{home}/a b"
    assert value(load_config(None, [f"{setting}=a~/b"]), setting) == "a~/b"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("address", MANGLED)
def test_every_setting_refuses_a_mangled_address(setting: str, address: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{setting}: .* is no address: expected s3://bucket/prefix"
    ) as error:
        load_config(None, [f"{setting}={address}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", MANGLED)
def test_nothing_opens_or_writes_a_mangled_address(home: Path, address: str) -> None:
    takers = [open_store, locate, local_folder, find_clip_config, find_pipeline, UniEmo.from_pretrained]
    for take in takers:
        with pytest.raises(ValueError, match="is no address"):
            take(address)  # type: ignore[operator]
    assert os.listdir(home.parent) == ["home"]


@pytest.mark.parametrize("path", [Path("s3://bucket/model"), "s3:/bucket/model"])
def test_a_model_is_not_saved_below_a_folder_named_s3(home: Path, path: str | Path) -> None:
    model = UniEmo.from_pretrained("tiny", with_diffusion=False)
    with pytest.raises(ValueError, match=r"as text and not as a pathlib\.Path"):
        model.save_pretrained(path)
    assert os.listdir(home.parent) == ["home"]


def test_the_home_folder_is_the_same_for_every_taker(home: Path) -> None:
    assert expand("~") == locate("~") == str(home)
    assert open_store("~/a").uri == open_store(locate("~/a")).uri == str(home / "a")
    assert local_folder("~/a") == local_path("~/a") == home / "a"
    with pytest.raises(ValueError, match=str(home / "clip")):
        find_clip_config(str(load_config(None, ["encoder.clip=~/clip"]).encoder.clip))


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/run",
        "tiny",
        "ViT-B-32",
        "owner/name",
        "./s3:/x",
        "runs/s3:1",
        "C:/x",
        "a~b",
        "~nobody-of-this-name/x",
    ],
)
def test_other_addresses_pass_as_they_are(address: str) -> None:
    assert expand(address) == address


@pytest.mark.parametrize("address", ["s3://bucket/x", "s3:/bucket/x", Path("s3://bucket/x")])
def test_what_must_be_local_says_so(address: str | Path) -> None:
    with pytest.raises(ValueError, match="expected a local path"):
        local_path(address)


def test_arguments_of_the_command_line(home: Path) -> None:
    given = ["data", "check", "~/a", "--out=~/b", "--set", "run=~/c", "--prompt", "~ x", "--", "--config=~/d"]
    h = str(home)
    assert expand_arguments(given) == [
        *(
            "data",
            "check",
            f"{h}/a",
            f"--out={h}/b",
            "--set",
            "run=~/c",
            "--prompt",
            "~ x",
            "--",
            "--config=~/d",
        )
    ]


@pytest.mark.slow
def test_the_command_makes_no_folder_named_tilde_or_s3(home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "uniemo_ray.cli",
        "data",
        "make-sketch",
        "--train=48",
        "--val=16",
        "--test=16",
    ]
    done = subprocess.run(
        [*command, "--size=32", "--out=~/sketch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, (home / "sketch" / "info.json").is_file()) == (0, True), done.stderr
    done = subprocess.run([*command, "--out=s3://bucket/x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected a local path" in done.stderr
    assert os.listdir(home.parent) == ["home"]


def test_a_relative_run_of_a_job_without_a_home_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "_ray_pkg_1"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    with pytest.raises(ValueError, match=r"'runs/a' is relative, .* no home folder: give the whole path"):
        locate("runs/a")
