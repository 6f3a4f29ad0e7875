"""A study: arms that differ in named settings, with paired seeds, intervals, and a verdict on every claim.

    uniemo submit experiments -- --study fig6 --set run=RUN
    uniemo submit experiments -- --study fig6 --size paper --set data.root=DIR --set run=RUN
    uniemo submit experiments -- --study my_study.yaml --seeds 3 --set run=RUN

What arms have in common is made once, also for studies that share a run folder. Submitting again continues;
with another seed or arm only what is new is made. The result is study.json and study.html in
RUN/studies/NAME.
"""

import argparse

from uniemo_ray.experiments.result import StudyResult
from uniemo_ray.experiments.study import SIZES, choose_seeds, read_study, study_names
from uniemo_ray.jobs.command_line import add_settings, execute, overrides_of
from uniemo_ray.loop.run_study import configure_arms, run_study


def main() -> None:
    """Check everything, run the steps, judge the claims."""
    arguments = make_parser().parse_args()
    name, study = read_study(arguments.study)
    with_intervals = not arguments.no_intervals
    seeds = choose_seeds(study, arguments.seeds, with_intervals=with_intervals)
    configs = configure_arms(study, size=arguments.size, overrides=overrides_of(arguments))
    run, result = run_study(
        study, configs, name=name, size=arguments.size, seeds=seeds, with_intervals=with_intervals
    )
    folder = f"studies/{name}" + ("" if result.size == "embedded" else f"-{result.size}")
    run.store.write_bytes(f"{folder}/study.json", to_json(result))
    for claim in result.claims:
        print(claim.sentence)
    print(f"study: {run.store.uri}/{folder}/study.json")


def to_json(result: StudyResult) -> bytes:
    """The file, for readers too."""
    return (result.model_dump_json(indent=1) + "\n").encode()


def make_parser() -> argparse.ArgumentParser:
    """The job's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study", required=True, help=f"YAML file, or a shipped one: {', '.join(study_names())}"
    )
    parser.add_argument("--size", choices=SIZES, default="embedded", help="which of the study's sizes")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 (default: the study's, five)")
    parser.add_argument(
        "--no-intervals", action="store_true", help="no intervals and verdicts, as with a single seed"
    )
    return add_settings(parser)


if __name__ == "__main__":
    execute(main)
