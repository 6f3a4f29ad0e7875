"""Named points at which a test can end or stop a process, to prove that a run survives it there.

Off unless the environment has UNIEMO_FAULT, as JSON: `point` (one of POINTS); `skip`, how often the point is
passed unharmed; `signal` (KILL unless given); `also`, a process that gets the signal first; `once`, a file
that must not exist yet and is made, so that of all processes and attempts only one is hit.
"""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Final

POINTS: Final = (
    "planned",  # driver: plan shards are committed, no actor runs yet
    "sealed",  # driver: it has superseded another one and closed that one's manifest
    "made",  # actor: rows are there, nothing is written
    "staged",  # any writer on a disk: under its temporary name, whole and verified
    "put",  # actor: under its stable name, not listed
    "checked",  # actor: about to be listed, the lease was looked at
    "listed",  # actor: listed, the driver does not know yet
    "mapped",  # driver: all shards are listed, the step has no record
    "recorded",  # driver: the step has its record, its newest one is not named yet
)
VARIABLE: Final = "UNIEMO_FAULT"
_fault: dict[str, Any] | None = json.loads(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def reach(point: str) -> None:
    """Pass a point of the commit protocol."""
    if _fault is not None and _fault["point"] == point:
        _strike(_fault)


def _strike(fault: dict[str, Any]) -> None:
    fault["skip"] = fault.get("skip", 0) - 1
    if fault["skip"] >= 0:
        return
    if "once" in fault:
        try:
            Path(fault["once"]).touch(exist_ok=False)
        except FileExistsError:
            return
    number = signal.Signals[f"SIG{fault.get('signal', 'KILL')}"]
    for process in (fault.get("also"), os.getpid()):
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
