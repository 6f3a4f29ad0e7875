"""A Ray head of your own on this machine: loopback only, free ports, token authentication.

    uniemo head run -- uniemo submit feedback_loop -- --config demo
    uniemo head start
    eval "$(uniemo head env)"
    uniemo head status
    uniemo head stop

`run` starts a head, runs one command against it and takes the head away again, whatever happened: the
command failed, Ctrl-C, SIGTERM, or this very process was killed. It ends with the time and the peak memory
of all processes; its exit code is the command's.
"""

import argparse
import contextlib
import logging
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from uniemo_ray.head.process import CLUSTER_SWITCH, HeadError, client_environment, start_head, stop_head
from uniemo_ray.head.state import HeadState, is_alive, read_state
from uniemo_ray.head.usage import Usage

logger = logging.getLogger(__name__)

STATE_ROOT = Path(".ray-head")


def run_command(folder: Path, command: list[str], *, num_cpus: int | None, store_mb: int) -> int:
    """Start a head, run `command` with its address and token in the environment, stop the head.

    Returns:
        The command's exit code, 128 + n when signal n ended it, 130 after Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _raise_exit)
    signal.signal(signal.SIGHUP, _raise_exit)
    state = start_head(folder, num_cpus=num_cpus, store_mb=store_mb)
    guard = _start_guard(folder)
    logger.info("Ray head at %s (loopback, token in %s)", state.address, state.token_path)
    usage = Usage(state)
    try:
        with usage:
            return _run_child(command, client_environment(state))
    finally:
        logger.info("%s", usage.line())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop_head(folder)
        _end_guard(guard)
        logger.info("Ray head stopped")


def _run_child(command: list[str], environment: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise HeadError(f"cannot run {command[0]!r}: {error.strerror}") from None
    try:
        code = child.wait()
    except BaseException:
        # Ctrl-C reached the child too, as a member of the terminal's process group; SIGTERM did not.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)
        raise
    return code if code >= 0 else 128 - code


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    """A process that stops the head once this one is gone: its standard input ends with us, even killed."""
    command = [sys.executable, "-m", "uniemo_ray.head", "--state", str(folder), "guard"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _end_guard(guard: subprocess.Popen[bytes]) -> None:
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait(timeout=60)


def _raise_exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def print_environment(folder: Path) -> None:
    """Print `export` lines for `eval`, so that `ray`, `serve` and `uniemo` commands reach the head."""
    state = _require(folder)
    for name in (
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_DASHBOARD_ADDRESS",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
        CLUSTER_SWITCH,
    ):
        print(f"export {name}={shlex.quote(client_environment(state)[name])}")


def _require(folder: Path) -> HeadState:
    state = read_state(folder)
    if state is None or not is_alive(state):
        raise HeadError(f"no Ray head runs for {folder}: start one with `uniemo head start`")
    return state


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; everything after `--` is the command of `run`."""
    parser = argparse.ArgumentParser(
        prog="uniemo head",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] ACTION",
    )
    parser.add_argument(
        "--state", type=Path, default=STATE_ROOT / "default", help="folder of the head's state"
    )
    parser.add_argument("--num-cpus", type=int, help="CPUs that Ray may hand out (default: all, at least 2)")
    parser.add_argument("--object-store-mb", type=int, default=1000, help="shared memory for objects")
    parser.add_argument(
        "action",
        metavar="ACTION",
        choices=["start", "stop", "status", "env", "run", "guard"],
        help="start, stop, status, env or run",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, default=[], help="for `run`: -- COMMAND...")
    return parser.parse_args(arguments)


def act(options: argparse.Namespace) -> int:
    """Carry out one action; returns the exit code."""
    folder: Path = options.state
    if options.action == "run":
        command = options.command[1:] if options.command[:1] == ["--"] else options.command
        if not command:
            raise HeadError("run expects a command: run -- ray job submit ...")
        return run_command(folder, command, num_cpus=options.num_cpus, store_mb=options.object_store_mb)
    if options.action == "start":
        state = start_head(folder, num_cpus=options.num_cpus, store_mb=options.object_store_mb)
        print(
            f"Ray head at {state.address}; to use it in this shell:\n"
            f'  eval "$(uniemo head --state {folder} env)"'
        )
    elif options.action == "stop":
        print("Ray head stopped" if stop_head(folder) else "no Ray head was running")
    elif options.action == "env":
        print_environment(folder)
    elif options.action == "guard":
        sys.stdin.buffer.read()
        stop_head(folder)
    else:
        state = _require(folder)
        print(f"Ray head at {state.address}, process {state.pid}, log {state.log_path}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point: errors are one line on standard error and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return act(parse(sys.argv[1:] if arguments is None else arguments))
    except HeadError as error:
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
