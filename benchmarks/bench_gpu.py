"""Images a second of training, generation and scoring on one GPU, against bare loops of the same models.

The models have the real architectures and random weights, and are built on the spot. Each part runs in a
process of its own:

    stage1      CLIP's image tower with expert queries      against fine-tuning the bare tower
    stage2      CLIP, a frozen Stable Diffusion             against the same two without conditions
    generation  what an actor does with its plan rows       against StableDiffusionPipeline
    scoring     what an actor does with encoded images      against open_clip's features alone

Both sides have their pictures in memory (decoded for training, as PNG for scoring) and take turns. A ratio of
1 says that ours is as fast. The method itself costs something: queries, fusion, contrastive losses and
provenance. Training parts also compare the memory that was used with what `uniemo plan` says.

Without a GPU it says so and ends. With UNIEMO_DEVICE=cpu and --tiny it tries itself without one.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.device import chosen_device, is_there, machine
from benchmarks.gpu_parts import FULL, RUNS, TINY, Bench, Row, run_part

NEAR = 0.1
"""How far measured memory may be from the plan's, as a share of it."""


def describe(row: Row) -> str:
    """One line, or two with memory."""
    rates = f"{row.ours:.3g} images/s, bare {row.bare:.3g}, ratio {row.ratio:.2f}"
    shown = f"{row.part} ({row.what}): {rates}, busy {row.busy:.0%} (by {row.busy_by})"
    if row.planned_bytes is None:
        return shown
    planned = f"planned {row.planned_bytes / 1e9:.2f} GB"
    if row.used_bytes is None:
        return f"{shown}\n  memory: {planned}; used memory is measured on a GPU only"
    off = row.used_bytes / row.planned_bytes - 1
    verdict = "within" if abs(off) <= NEAR else "NOT within"
    return (
        f"{shown}\n  memory: {planned}, used {row.used_bytes / 1e9:.2f} GB ({off:+.0%}, {verdict} {NEAR:.0%})"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="the shipped architectures at a small size")
    parser.add_argument("--parts", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--checkpointing", action="store_true", help="stage 2 with gradient checkpointing")
    parser.add_argument("--batches", nargs=2, type=int, metavar=("STAGE1", "STAGE2"), help="images of a step")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    device = chosen_device()
    if not is_there(device):
        print("skipped: no GPU")
        return
    scale = TINY if options.tiny else FULL
    scale = scale._replace(batches=tuple(options.batches or scale.batches))
    precision = options.precision or ("bf16" if device == "cuda" else "fp32")
    if options.run:
        row = run_part(options.run, Bench(scale, device, precision, options.checkpointing))
        print(json.dumps(row._asdict()))
        return
    print(", ".join(f"{name} {value}" for name, value in machine(device).items()))
    given: list[str] = sys.argv[1:] if arguments is None else arguments
    for part in options.parts:
        print(describe(_measure(part, given)), flush=True)


def _measure(part: str, given: list[str]) -> Row:
    """One part in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, *given, "--run", part]
    environment = {"KINETO_LOG_LEVEL": "5", **os.environ}  # the profiler's own log
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Row(**values)


if __name__ == "__main__":
    main()
