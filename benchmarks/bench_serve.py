"""The HTTP service against direct calls of the same model, under load, faults and hostile input.

Everything is measured in one run on one machine, which the callers share with the service: what they need
counts against it. `--scale 0.1` measures a tenth as long; the bounds are stated for 1, which takes about
half an hour.
"""

import argparse
import os
import socket
import tempfile
from pathlib import Path

import ray
from ray import serve

from benchmarks import serve_figures as figures
from benchmarks import serve_kills
from benchmarks.serve_load import photo
from uniemo_ray.service.app import BuildArgs, build_app
from uniemo_ray.service.settings import Limits

SECTIONS = {
    section.__name__: section
    for section in (
        figures.latency,
        figures.throughput,
        figures.overload,
        serve_kills.kills,
        figures.updates,
        figures.mutated,
        figures.conformance,
    )
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="model folder; by default the shipped one")
    parser.add_argument("--scale", type=float, default=1.0, help="of all durations and counts")
    parser.add_argument("--only", nargs="+", choices=sorted(SECTIONS), default=list(SECTIONS))
    return parser.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    options = parse()
    model = options.model if options.model == "tiny" else str(Path(options.model).resolve())
    port = free_port()
    limits = Limits(requests_per_minute=10_000_000, concurrent_requests=500, concurrent_generations=500)
    # more CPUs than there are, so that an update finds room for one more replica of each kind
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as store:
        arguments = BuildArgs(model=model, store=store, limits=limits)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build_app(arguments))
        understander, image_generator = figures.load_directly(arguments)
        bench = figures.Bench(
            url=f"http://127.0.0.1:{port}",
            arguments=arguments,
            photos=[photo(seed) for seed in range(50)],
            understander=understander,
            image_generator=image_generator,
            scale=options.scale,
        )
        print("environment:", {k: v for k, v in os.environ.items() if k.startswith("RAY_SERVE")}, flush=True)
        for name in options.only:
            for figure in SECTIONS[name](bench):
                mark = "met" if figure.is_met else "NOT MET"
                print(f"{figure.what}: {figure.measured} [at least: {figure.bound}] {mark}", flush=True)
        serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
