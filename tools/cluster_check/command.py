"""`cluster/check.py`: run every check, print one line per fault."""

import argparse
import os
from pathlib import Path

from tools.cluster_check.faults import Fault, NotCheckedError
from tools.cluster_check.manifests import Manifests

ROOT = Path(__file__).parents[2]
VARIABLE = "UNIEMO_K8S_SCHEMAS"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 2 where there is a fault."""
    parser = argparse.ArgumentParser(description="Check cluster/ without a cloud.")
    default = os.environ.get(VARIABLE)
    parser.add_argument(
        "--schemas",
        type=Path,
        default=Path(default) if default else None,
        metavar="DIR",
        help=f"folder of the custom resources' schemas (default: ${VARIABLE})",
    )
    options = parser.parse_args(arguments)
    faults: list[Fault] = []
    reasons: dict[str, list[str]] = {}
    done = 0
    for name, check in Manifests(ROOT, options.schemas).checks():
        try:
            faults += check()
            done += 1
        except NotCheckedError as error:
            reasons.setdefault(str(error), []).append(name)
    for fault in dict.fromkeys(faults):
        print(fault)
    for reason, names in reasons.items():
        print(f"not checked ({len(names)}, the first is {names[0]}): {reason}")
    print(f"{done} checks made, {len(set(faults))} faults")
    return 2 if faults else 0
