"""A fresh environment with a built wheel in it, and what its servers answer."""

import json
import os
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 900
FAR = ("RAY_", "UNIEMO_", "PYTHON", "VIRTUAL_ENV", "_UNIEMO")
"""Variables that would lead a command of the fresh environment elsewhere."""


class Installed:
    """A fresh environment with the wheel, and commands that run in it from a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.python = self.bin / "python"

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FAR)}
        return kept | {"PATH": f"{self.bin}{os.pathsep}{os.defpath}", "HF_HUB_OFFLINE": "1"}

    def run(self, *command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd,
            env=self.environment() | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def output(self, *command: str | Path, cwd: Path, **variables: str) -> str:
        done = self.run(*command, cwd=cwd, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def started(self, *command: str | Path, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [self.bin / command[0], *command[1:]], cwd=cwd, env=self.environment() | variables
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)


def install(wheel: Path, folder: Path) -> Installed:
    """A new environment that holds the wheel alone and sees the running environment's other packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    fresh = Installed(folder)
    pip = [sys.executable, "-m", "pip", "--python", fresh.python, "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=TIMEOUT_S)
    (packages,) = folder.glob("lib/python*/site-packages")
    # .pth files in the folders that this one names, such as that of an editable install, are not read
    (packages / "dependencies.pth").write_text("\n".join(dependencies()) + "\n")
    return fresh


def dependencies() -> list[str]:
    """Folders of the running environment's packages."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()})


def build(source: Path, target: Path, *options: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_served(port: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """The page, its script, and the shipped model's name, as soon as they answer."""
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + TIMEOUT_S
    while (status := status_of(f"{address}/readyz")) != 200:
        assert time.monotonic() < deadline, status
        assert process is None or process.poll() is None, "the server ended"
        time.sleep(0.5)
    assert b"<title>" in read(f"{address}/")
    assert json.loads(read(f"{address}/v1/model"))["fingerprint"]


def status_of(url: str) -> int:
    try:
        with opener().open(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def read(url: str) -> bytes:
    with opener().open(url, timeout=60) as answer:
        return bytes(answer.read())


def opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
