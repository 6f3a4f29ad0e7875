"""Mutation testing: break the code in small ways, one at a time, and count what its tests notice.

python -m tools.mutants [uniemo_ray/losses.py ...]

mutmut makes the mutants. It leaves decorated functions alone (properties, `torch.no_grad`), and so do we.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "mutants"
FAST = "not ray and not slow and not integration and not gpu"
WANTED = 90
"""Least share of killed mutants of a file. Unit: percent."""
KILLED = frozenset({1, 3, 36, 24, -24, 152, 255, -9, -11})
"""How mutmut ends for a mutant that was noticed: a failed test, the time limit, the end of the process."""

TESTS = {
    "uniemo_ray/losses.py": ("tests/test_losses.py",),
    "uniemo_ray/training/objectives.py": ("tests/training/test_objective_values.py",),
    "uniemo_ray/training/joint_objective.py": ("tests/training/test_objective_values.py",),
    "uniemo_ray/models/fusion.py": ("tests/models/test_fusion.py",),
    "uniemo_ray/models/interactive.py": ("tests/models/test_interactive.py",),
    "uniemo_ray/models/encoder.py": ("tests/models/test_encoder.py",),
    "uniemo_ray/feedback/mixing.py": ("tests/feedback/test_mixing.py",),
    "uniemo_ray/feedback/plan.py": ("tests/feedback/test_plan.py",),
    "uniemo_ray/feedback/plan_shards.py": ("tests/feedback/test_plan_shards.py",),
    "uniemo_ray/feedback/rank_filter.py": (
        "tests/feedback/test_rank_filter.py",
        "tests/feedback/test_rank_filter_storage.py",
    ),
    "uniemo_ray/feedback/schema.py": ("tests/feedback/test_schema.py",),
    "uniemo_ray/feedback/verdicts.py": ("tests/feedback/test_judging.py", "tests/feedback/test_verdicts.py"),
    "uniemo_ray/feedback/ranking/chunk_ranking.py": ("tests/feedback/ranking/test_chunk_ranking.py",),
    "uniemo_ray/feedback/ranking/external_sort.py": ("tests/feedback/ranking/test_external_sort.py",),
    "uniemo_ray/feedback/ranking/score_chunks.py": ("tests/feedback/ranking/test_score_chunks.py",),
    "uniemo_ray/feedback/ranking/scratch.py": ("tests/feedback/ranking/test_scratch.py",),
    "uniemo_ray/metrics/accuracy.py": ("tests/metrics/test_accuracy.py",),
    "uniemo_ray/metrics/emo_a.py": ("tests/metrics/test_emo_a.py",),
    "uniemo_ray/metrics/emotion_judge.py": ("tests/metrics/test_emotion_judge.py",),
    "uniemo_ray/metrics/frechet.py": ("tests/metrics/test_frechet.py",),
    "uniemo_ray/metrics/generation.py": ("tests/metrics/test_generation.py",),
    "uniemo_ray/metrics/inception.py": ("tests/metrics/test_inception.py",),
    "uniemo_ray/metrics/pairs.py": ("tests/metrics/test_pairs.py",),
    "uniemo_ray/metrics/perceptual.py": ("tests/metrics/test_perceptual.py",),
    "uniemo_ray/metrics/pictures.py": ("tests/metrics/test_pictures.py",),
    "uniemo_ray/metrics/published.py": ("tests/metrics/test_published.py",),
    "uniemo_ray/metrics/recogniser.py": ("tests/metrics/test_recogniser.py",),
    "uniemo_ray/metrics/resnet.py": ("tests/metrics/test_resnet.py",),
    "uniemo_ray/metrics/sem_c.py": ("tests/metrics/test_sem_c.py",),
    "uniemo_ray/metrics/sem_d.py": ("tests/metrics/test_sem_d.py",),
    "uniemo_ray/metrics/weights.py": ("tests/metrics/test_weights.py",),
}
"""Files whose mutants are made, and the tests that concern each."""

# The plugin for unraisable exceptions collects garbage at the end, which takes most of a mutant's time in a
# process that holds torch.
SETTINGS = """
[tool.mutmut]
source_paths = ["uniemo_ray"]
only_mutate = [{file}]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
do_not_mutate_patterns = ['^\\s*raise ', 'logger\\.', 'warnings\\.warn']
process_isolation = "fork"
on_dependency_change = "ignore"
use_git_change_detection = false
"""

COMMANDS = """
import json, sys
from mutmut.__main__ import cli
for command in json.loads(sys.argv[1]):
    cli(command, standalone_mode=False)
"""
"""One process for many commands, each of which would import mutmut anew."""


@dataclass(frozen=True)
class Result:
    """What the tests of a file noticed."""

    file: str
    mutants: int
    survivors: tuple[str, ...]
    """Names that `mutmut show` takes."""
    seconds: float

    @property
    def percent(self) -> float:
        """Share of killed mutants. Unit: percent."""
        return 100 * (1 - len(self.survivors) / self.mutants) if self.mutants else 100.0


def prepare(file: str, root: Path = ROOT, folder: Path = FOLDER) -> Path:
    """Make a fresh folder in which mutmut finds the repository and the settings of one file."""
    work = folder / file.removesuffix(".py").replace("/", ".")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("uniemo_ray", "tests"):
        (work / name).symlink_to(root / name)
    tests = json.dumps(["-m", FAST, *TESTS[file]])
    settings = SETTINGS.format(file=json.dumps(file), tests=tests)
    (work / "pyproject.toml").write_text((root / "pyproject.toml").read_text() + settings)
    return work


def mutmut(work: Path, *commands: list[str]) -> str:
    """Run commands of mutmut in a prepared folder, one after the other, and return what they print.

    Raises:
        SystemExit: with their output when one failed: tests fail without a mutant, or there is no mutmut.
    """
    threads = {"OMP_NUM_THREADS": "1"}  # it forks a process that has imported torch
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=work,
        env=os.environ | threads,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nmutmut failed in {work}")
    return done.stdout


def read(work: Path, file: str, seconds: float) -> Result:
    """The result that mutmut has left in its folder."""
    codes = json.loads((work / "mutants" / f"{file}.meta").read_text())["exit_code_by_key"]
    survivors = tuple(name for name, code in codes.items() if code not in KILLED)
    return Result(file, len(codes), survivors, seconds)


def measure(file: str, processes: int) -> Result:
    """Make the mutants of a file, run its tests against each and print the survivors."""
    start = time.monotonic()
    work = prepare(file)
    mutmut(work, ["run", "--max-children", str(processes)])
    result = read(work, file, time.monotonic() - start)
    print(mutmut(work, *(["show", name] for name in result.survivors)), flush=True)
    return result


def table(results: list[Result]) -> str:
    """The results as a Markdown table."""
    rows = ["| file | mutants | killed | survivors | seconds |", "| --- | --- | --- | --- | --- |"]
    for each in results:
        killed = f"{each.mutants - len(each.survivors)} ({each.percent:.0f} %)"
        rows.append(
            f"| `{each.file}` | {each.mutants} | {killed} | {len(each.survivors)} | {each.seconds:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure the given files, or all; end with 1 if fewer than 90 % of a file's mutants were killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"one of {', '.join(TESTS)}")
    parser.add_argument("--processes", type=int, default=2, help="mutants tested at the same time")
    given = parser.parse_args()
    if unknown := [file for file in given.files if file not in TESTS]:
        parser.error(f"no tests are named for {', '.join(unknown)}: add them to TESTS in tools/mutants.py")
    results = [measure(file, given.processes) for file in given.files or TESTS]
    print(table(results))
    sys.exit(any(each.percent < WANTED for each in results))


if __name__ == "__main__":
    main()
