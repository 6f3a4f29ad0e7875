"""Submissions of `exactly_once_case.py`, and what they leave behind."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.cluster_utils import Cluster

from uniemo_ray.store.base import Store
from uniemo_ray.store.faults import VARIABLE
from uniemo_ray.store.shards import ShardEntry, committed, read_shards
from uniemo_ray.store.verify import verify_run

ROOT = Path(__file__).parents[2]
CASE = "tests/distributed/exactly_once_case.py"
DRIVER_POINTS = ("planned", "sealed", "mapped", "recorded")
N, SHARDS, IMAGES = 6, 12, 48
"""Images per emotion, shards of four rows, images."""
TIMEOUT_S = 600


def client_environment(cluster: Cluster) -> dict[str, str]:
    """What a driver needs to reach a cluster."""
    return address_environment(cluster.address)


def address_environment(address: str) -> dict[str, str]:
    """The same for a cluster at an address."""
    own = {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own}


@contextmanager
def driver(
    uri: str,
    environment: dict[str, str],
    *,
    point: str = "",
    fault: dict[str, object] | None = None,
    **settings: object,
) -> Iterator[subprocess.Popen[str]]:
    """A submission as a process of its own, with a fault in itself or in its workers."""
    variable = VARIABLE if point in DRIVER_POINTS else "WORKER_FAULT"
    armed = {variable: json.dumps({"point": point, **(fault or {})})} if point else {}
    command = [sys.executable, CASE, uri, json.dumps({"n": N, **settings})]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | armed,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def submit(uri: str, environment: dict[str, str], **options: object) -> tuple[int, str]:
    """Return code and output of a whole submission."""
    with driver(uri, environment, **options) as process:  # type: ignore[arg-type]
        output = process.communicate(timeout=TIMEOUT_S)[0]
        return process.returncode, output


def made(store: Store) -> Store:
    """The folder of the generating step."""
    return store.sub("/".join(store.list("artefacts")[0].split("/")[:2]))


def image_files(store: Store) -> dict[str, str]:
    folder = made(store)
    return {
        key: hashlib.sha256(folder.read_bytes(key)).hexdigest()
        for key in folder.list("images")
        if key.endswith(".parquet")
    }


def entries(store: Store) -> dict[str, ShardEntry]:
    return committed(made(store), "images/")


def assert_sound(store: Store, *, images: int = IMAGES) -> None:
    """Verify is clean, every image is there once."""
    assert verify_run(store).findings == ()
    ids = read_shards(made(store), "images/", columns=["image_id"])["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == images


def begun_shards(journal: Path) -> list[str]:
    """First image ids of the shards that actors have begun, in that order."""
    return [line.split()[0] for line in journal.read_text().splitlines()] if journal.exists() else []
