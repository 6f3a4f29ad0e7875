"""README's two submit lines against a head that `ray start --head` made, with a token and without."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fresh_environment import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECTION = "## A real cluster"
SHOWN = "--config sketch --set run=s3://bucket/my-run"
"""The arguments that the lines show; they take hours, so that a small run takes their place."""
SMALL = (
    *("data.sketch_train=48", "data.sketch_val=16", "data.sketch_test=16", "data.rows_per_shard=32"),
    *(f"stage{n}.{value}" for n in (1, 2) for value in ("epochs=1", "batch_size=16")),
    *("scorers.epochs=2", "generation.per_emotion=2", "generation.rows_per_shard=8", "diffusion.steps=2"),
    *("evaluation.plain_per_emotion=2", "evaluation.pairs=10"),
)


def shown_lines() -> tuple[str, str]:
    """Plain Ray's line and that of `uniemo submit`, as README shows them."""
    section = (ROOT / "README.md").read_text().partition(SECTION)[2]
    plain = section.partition("```bash\n")[2].partition("```")[0].replace("\\\n", "")
    own = section.partition("```\n\n`")[2].partition("`")[0]
    return " ".join(plain.split()), " ".join(own.split())


def environment(home: Path, **variables: str) -> dict[str, str]:
    """That of a user with this home, and none of Ray's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UNIEMO_"))}
    return {**kept, "HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **variables}


@contextmanager
def plain_head(folder: Path, own: dict[str, str]) -> Iterator[str]:
    """A head by Ray's own command; gives the address of its dashboard."""
    dashboard = free_port()
    options = (
        *("--head", "--block", "--disable-usage-stats", "--num-cpus=4", "--object-store-memory=200000000"),
        *(f"--port={free_port()}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"),
        *(f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"),
    )
    process = subprocess.Popen(["ray", "start", *options], env=own, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        end = time.monotonic() + 120
        while not answers(f"{address}/api/version"):
            assert process.poll() is None, "the head has ended"
            assert time.monotonic() < end, "the head does not answer"
            time.sleep(0.3)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def submit(line: str, run: Path, own: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Execute one of README's lines for a small run."""
    assert line.endswith(SHOWN)
    small = f"--config demo {' '.join(f'--set {value}' for value in (f'run={run}', *SMALL))}"
    return subprocess.run(
        shlex.split(line.replace(SHOWN, small)),
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_both_lines_of_the_readme_with_a_token_and_without(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("plain")
    home, run = folder / "home", folder / "run"
    home.mkdir()
    plain, own = shown_lines()
    assert plain.startswith("ray job submit --working-dir . -- python jobs/feedback_loop.py")
    assert own.startswith("uniemo submit feedback_loop -- ")

    no_token = environment(home, RAY_AUTH_MODE="disabled")
    with plain_head(folder / "a", no_token) as address:
        reached = no_token | {"RAY_API_SERVER_ADDRESS": address}
        for line in (plain, own):  # the second finds everything finished
            done = submit(line, run, reached)
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"report: {run}" in done.stdout

    made = subprocess.run(
        ["ray", "get-auth-token", "--generate"], env=environment(home), capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert (home / ".ray" / "auth_token").is_file()
    with plain_head(folder / "b", environment(home, RAY_AUTH_MODE="token")) as address:
        reached = environment(home, RAY_API_SERVER_ADDRESS=address)
        done = submit(own, run, reached)
        assert done.returncode == 0, done.stdout + done.stderr
        without = submit(plain, run, reached | {"RAY_AUTH_MODE": "disabled"})
        assert without.returncode != 0
        assert "AuthenticationError" in without.stdout + without.stderr
        done = submit(plain, run, reached | {"RAY_AUTH_MODE": "token"})
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"report: {run}" in done.stdout
