"""The tiny loop on the pools of `cluster/kuberay/`, from no machine to all and back, on this computer.

Each worker group of the RayJob becomes a type of machine with the same labels and one CPU, and Ray's
autoscaler starts and ends such machines as processes. A line is printed when machines come or go, and when a
step starts, ends or waits. It takes about ten minutes on two cores and some 8 GB of memory. There is no cloud
in it: it shows that every step runs on the machines of its pool, and that all of them go again.
"""

import argparse
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.rehearsal.watch import Record

SWITCHES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "DS_ACCELERATOR": "cpu"}
"""Of the head and all its drivers: before Ray is imported. The first keeps Ray on 127.0.0.1."""
IDLE_MINUTES = 0.25
EVERY_S = 0.5
BACK_S = 120.0
"""Time for the machines to go after the run."""
_SHOWN = re.compile(r"\d\d:\d\d:\d\d (?P<what>.*(waits for|\[\d+/\d+\]).*)$")
"""Lines of the driver's own log that tell of steps."""


def main() -> int:
    """Entry point; 1 where the run failed, or machines stayed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=Path, help="write what was seen to this JSON file")
    parser.add_argument("--folder", type=Path, help="keep the run in this folder")
    options = parser.parse_args()
    os.environ.update(SWITCHES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the machines end as well
    with tempfile.TemporaryDirectory(prefix="uniemo-rehearsal-") as scratch:
        return rehearse(options.folder or Path(scratch), options.record)


def rehearse(folder: Path, record_file: Path | None) -> int:
    """Start the head, run the loop, print what happens; 0 if all went as it should."""
    import ray

    from tools.rehearsal.head import autoscaling_head
    from tools.rehearsal.shapes import machine_types, write_settings
    from tools.rehearsal.watch import Record

    types = machine_types()
    print("starting a head without CPUs; the run's pools and machines are those of cluster/kuberay/base")
    table, record = Table(list(types)), Record({name: type_["labels"] for name, type_ in types.items()})
    with autoscaling_head(types, idle_minutes=IDLE_MINUTES) as address:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
        try:
            table.head()
            code = _run(write_settings(folder), address, record, table)
            until = time.monotonic() + BACK_S
            while table.machines and time.monotonic() < until:
                _look(record, table)
        finally:
            ray.shutdown()  # before its head goes: Ray would end this process with it
    is_back = not table.machines
    _summary(record, table, is_back=is_back, code=code)
    if record_file:
        seen = {step: dict(pools) for step, pools in record.places.items()}
        record_file.write_text(
            json.dumps(
                {"code": code, "counts": record.counts, "places": seen, "is_back": is_back, "log": table.log}
            )
        )
    return 0 if code == 0 and is_back else 1


class Table:
    """Lines with the time, the machines of each group, and what happens."""

    def __init__(self, groups: Sequence[str]) -> None:
        self.groups, self.machines = groups, dict[str, int]()
        self.log: list[str] = []
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def head(self) -> None:
        """The first line."""
        self._started = time.monotonic()
        print("\n" + "  ".join(["time ", *self.groups, "what happens"]), flush=True)

    def hear(self, line: str) -> None:
        """A line of the driver's log; those of interest are shown without its own time."""
        self.log.append(line)
        if found := _SHOWN.match(line):
            self.say(found["what"])

    def say(self, what: str) -> None:
        """One line."""
        clock = f"{int(self.seconds) // 60:2d}:{int(self.seconds) % 60:02d}"
        cells = [str(self.machines.get(group) or ".").center(len(group)) for group in self.groups]
        print("  ".join([clock, *cells, what]), flush=True)


def _run(config: Path, address: str, record: "Record", table: Table) -> int:
    """Run the loop and look on; its exit code."""
    process = _driver(config, address)
    lines = _lines(process)
    try:
        while process.poll() is None or not lines.empty():
            _look(record, table)
            while not lines.empty():
                table.hear(lines.get())
    finally:
        process.kill()
    return process.wait()


def _look(record: "Record", table: Table) -> None:
    """Look at the cluster once, after a moment."""
    import ray

    time.sleep(EVERY_S)
    is_new = record.add(ray.nodes(), ray._private.state.actors(), seconds=table.seconds)
    if is_new:
        before, table.machines = table.machines, record.counts[-1][1]
        table.say(_change(before, table.machines))


def _change(before: dict[str, int], after: dict[str, int]) -> str:
    parts = []
    for group in sorted(before.keys() | after.keys()):
        more = after.get(group, 0) - before.get(group, 0)
        if more:
            parts.append(f"{'+' if more > 0 else '-'}{abs(more)} {group}")
    return ", ".join(parts) or "no machine beside the head"


def _driver(config: Path, address: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "uniemo_ray.jobs.feedback_loop", "--config", str(config)]
    return subprocess.Popen(
        command,
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _lines(process: "subprocess.Popen[str]") -> "queue.Queue[str]":
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip())

    threading.Thread(target=read, daemon=True).start()
    return lines


def _summary(record: "Record", table: Table, *, is_back: bool, code: int) -> None:
    print("\nwhere processes were seen (step: pool of the machine)")
    for step, pools in sorted(record.places.items()):
        print(f"  {step:20s} {', '.join(sorted(pools))}")
    most = ", ".join(f"{count} {group}" for group, count in sorted(record.most().items()))
    print(f"machines at most: {most}; at the end: {'none' if is_back else table.machines}")
    if code:
        print("\n".join(["the run failed; its last lines:", *table.log[-30:]]))
    print(f"took {table.seconds / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
