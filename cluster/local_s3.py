"""A real S3 server on this machine for tests: Ceph's RADOS gateway over one monitor, manager and disk file.

    python cluster/local_s3.py start          # about 20 s; prints the variables that clients need
    eval "$(python cluster/local_s3.py env)"
    python cluster/local_s3.py stop           # ends it and removes its data

Needs root and Debian's packages:
    apt-get install -y --no-install-recommends ceph-mon ceph-osd ceph-mgr radosgw
It listens on loopback only, with keys that are public knowledge: never put data on it that matters.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path("/tmp/uniemo-s3")
MARKER = "made-by-local-s3"
"""Without it, a folder is not removed."""
ACCESS_KEY, SECRET_KEY = "UNIEMO", "UNIEMOSECRET"
TOOLS = ("ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "ceph-authtool", "monmaptool", "radosgw-admin")
DISK_BYTES = 8 << 30
WAIT_S = 90
CONFIG = """
[global]
fsid = {fsid}
mon_host = {monitor}
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 500
bluestore_block_size = {disk_bytes}
osd_memory_target = 939524096
setuser_match_path =
run_dir = {root}/run
log_file = {root}/log/$name.log
pid_file = {root}/run/$name.pid
admin_socket = {root}/run/$name.asok
keyring = {root}/keys/$name
mon_data = {root}/mon
mgr_data = {root}/mgr
osd_data = {root}/osd
[mon]
mon_data_avail_warn = 5
mon_data_avail_crit = 2
auth_allow_insecure_global_id_reclaim = false
[client.rgw.local]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_dns_name = localhost
"""


class ServerError(RuntimeError):
    """The server cannot start; the message says what to do."""


def start(root: Path, port: int) -> None:
    """Start a fresh server that keeps its data below `root`.

    Raises:
        ServerError: packages are missing, the folder or the port is taken, or a daemon failed.
    """
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise ServerError(
            f"{', '.join(missing)} not found: apt-get install ceph-mon ceph-osd ceph-mgr radosgw"
        )
    if root.exists():
        raise ServerError(f"{root} exists: stop the server that runs there, or remove the folder")
    if answers(port):
        raise ServerError(f"port {port} is taken: choose another with --port")
    for name in ("run", "log", "keys", "mon", "mgr", "osd"):
        (root / name).mkdir(parents=True)
    try:
        _start_daemons(root, port)
    except BaseException:
        stop(root, keep_logs=True)
        raise


def _start_daemons(root: Path, port: int) -> None:
    monitor = f"[v2:127.0.0.1:{port + 1},v1:127.0.0.1:{port + 2}]"
    fsid = str(uuid.uuid4())
    config = CONFIG.format(fsid=fsid, monitor=monitor, disk_bytes=DISK_BYTES, root=root, port=port)
    (root / MARKER).touch()
    (root / "ceph.conf").write_text(config)
    admin, keys = root / "keys" / "client.admin", root / "keys"
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    _run(root, "ceph-authtool", "--create-keyring", admin, "--gen-key", "-n", "client.admin", *everything)
    first = keys / "mon.a"
    _run(
        root, "ceph-authtool", "--create-keyring", first, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
    )
    _run(root, "ceph-authtool", first, "--import-keyring", admin)
    _run(root, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, root / "monmap")
    _run(root, "ceph-mon", "--mkfs", "-i", "a", "--monmap", root / "monmap", "--keyring", first)
    _run(root, "ceph-mon", "-i", "a")
    _make_key(root, "mgr.x", mon="allow profile mgr", osd="allow *", mds="allow *")
    _run(root, "ceph-mgr", "-i", "x")
    _make_key(root, "osd.0", mon="allow profile osd", mgr="allow profile osd", osd="allow *")
    disk = str(uuid.uuid4())
    _run(root, "ceph", "osd", "new", disk, "0")
    _run(root, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    _run(root, "ceph-osd", "-i", "0")
    _make_key(root, "client.rgw.local", mon="allow rw", osd="allow rwx", mgr="allow rw")
    _run(root, "radosgw", "-n", "client.rgw.local")
    _wait(root, port)
    user = ("--uid=uniemo", "--display-name=uniemo", f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}")
    _run(root, "radosgw-admin", "user", "create", *user)


def _make_key(root: Path, name: str, **rights: str) -> None:
    """A daemon's key, where the config expects it."""
    caps = [word for pair in rights.items() for word in pair]
    _run(root, "ceph", "auth", "get-or-create", name, *caps, "-o", root / "keys" / name)


def _run(root: Path, *command: str | Path) -> None:
    """One tool, with the server's config; daemons put themselves into the background."""
    words = [str(word) for word in command]
    environment = {**os.environ, "CEPH_CONF": str(root / "ceph.conf")}
    try:
        done = subprocess.run(
            words, env=environment, cwd=root, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServerError(f"{words[0]} did not answer in {WAIT_S} s: see {root}/log") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServerError(f"{words[0]} failed: {last} (see {root}/log)")


def _wait(root: Path, port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while not answers(port):
        if time.monotonic() > deadline:
            raise ServerError(f"the gateway does not answer on port {port}: see {root}/log")
        time.sleep(0.2)


def answers(port: int) -> bool:
    """Whether something speaks HTTP on this port of loopback."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def stop(root: Path, *, keep_logs: bool = False) -> bool:
    """End the daemons and remove their data; returns whether any ran."""
    pids = [int(path.read_text()) for path in root.glob("run/*.pid") if path.read_text().strip()]
    running = [pid for pid in pids if _is_ours(pid)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_is_ours, running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 10
        while any(_is_ours(pid) for pid in running) and time.monotonic() < deadline:
            time.sleep(0.1)
    if not keep_logs and (root / MARKER).is_file():
        shutil.rmtree(root, ignore_errors=True)
    return bool(running)


def _is_ours(pid: int) -> bool:
    """Whether the process with this id is a Ceph daemon, and not a later one that got its id."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False
    return name.startswith(("ceph-", "radosgw"))


def environment(port: int) -> dict[str, str]:
    """What clients and the tests need."""
    endpoint = f"http://127.0.0.1:{port}"
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "UNIEMO_TEST_S3_ENDPOINT": endpoint,
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=f"folder of its data (default {ROOT})")
    parser.add_argument("--port", type=int, default=19100, help="the next two ports are taken as well")
    parser.add_argument("action", choices=["start", "stop", "env"])
    options = parser.parse_args()
    try:
        if options.action == "start":
            start(options.root.absolute(), options.port)
        if options.action == "stop":
            print("S3 server stopped" if stop(options.root.absolute()) else "no S3 server was running")
        else:
            for name, value in environment(options.port).items():
                print(f"export {name}={value}")
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
