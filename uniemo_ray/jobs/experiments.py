"""A study: arms that differ in named settings, with paired seeds, intervals, and a verdict on every claim.

    uniemo submit experiments -- --study fig6 --set run=RUN
    uniemo submit experiments -- --study fig6 --size paper --set data.root=DIR --set run=RUN
    uniemo submit experiments -- --study my_study.yaml --seeds 3 --set run=RUN

What arms have in common is made once, also for studies that share a run folder. Submitting again continues;
with another seed or arm only what is new is made. The result is study.json and study.html in
RUN/studies/NAME. Results of several studies become a page, with its charts in images/experiments beside it:

    python -m uniemo_ray.jobs.experiments --page docs/experiments.md RUN/studies/*/study.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from uniemo_ray.experiments.result import StudyResult
from uniemo_ray.experiments.study import SIZES, choose_seeds, read_study, study_names
from uniemo_ray.jobs.command_line import add_settings, execute, overrides_of
from uniemo_ray.loop.run_study import StudyRun, configure_arms, run_study
from uniemo_ray.report.study import render_page, render_study, slug
from uniemo_ray.store.atomic import write_atomically
from uniemo_ray.text import first_line

STUDY, PAGE = "study.json", "study.html"
IMAGES = "images/experiments"
"""Folder of a page's charts, beside the page."""


def main() -> None:
    """Check everything, run the steps, judge the claims."""
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.results and arguments.page is None:
        parser.error(f"{arguments.results[0]} is an argument of --page")
    if arguments.page is not None:
        write_page(arguments.page, arguments.results)
        return
    name, study = read_study(arguments.study)
    with_intervals = not arguments.no_intervals
    seeds = choose_seeds(study, arguments.seeds, with_intervals=with_intervals)
    configs = configure_arms(study, size=arguments.size, overrides=overrides_of(arguments))
    run, result = run_study(StudyRun(name, study, arguments.size, configs, seeds, with_intervals))
    folder = f"studies/{slug(result)}"
    run.store.write_bytes(f"{folder}/{STUDY}", to_json(result))
    run.store.write_bytes(f"{folder}/{PAGE}", render_study(result).encode())
    for claim in result.claims:
        print(claim.sentence)
    print(f"study: {run.store.uri}/{folder}/{PAGE}")


def write_page(page: Path, results: Sequence[Path]) -> None:
    """Write the page and its charts from `study.json` files, in the order given.

    Raises:
        ValueError: no file, or one that holds no study; it is named.
    """
    if not results:
        raise ValueError("--page needs study.json files: give them after it")
    found = [read_result(path) for path in results]
    text, charts = render_page(found, images=IMAGES)
    for name, chart in charts.items():
        with write_atomically(page.parent / IMAGES / name) as file:
            file.write(chart.encode())
    with write_atomically(page) as file:
        file.write(text.encode())
    print(f"page: {page}")


def read_result(path: Path) -> StudyResult:
    """A `study.json`.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        return StudyResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} holds no study of this release: {first_line(error)}") from None


def to_json(result: StudyResult) -> bytes:
    """The file, for readers too."""
    return (result.model_dump_json(indent=1) + "\n").encode()


def make_parser() -> argparse.ArgumentParser:
    """The job's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", help=f"YAML file, or a shipped one: {', '.join(study_names())}")
    what.add_argument("--page", type=Path, metavar="FILE", help="write a Markdown page of finished studies")
    parser.add_argument("results", nargs="*", type=Path, metavar="STUDY_JSON", help="of the page, in order")
    parser.add_argument("--size", choices=SIZES, default="embedded", help="which of the study's sizes")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="seeds 0 to N - 1 (default: the study's, five)"
    )
    parser.add_argument(
        "--no-intervals", action="store_true", help="no intervals and verdicts, as with a single seed"
    )
    return add_settings(parser)


if __name__ == "__main__":
    execute(main)
