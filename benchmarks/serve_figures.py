"""The figures of the service, each against its bound; every one is measured on a running service."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from ray import serve

from benchmarks.mutated_images import mutants
from benchmarks.serve_load import (
    at_rate,
    generate_call,
    loaded,
    percentile,
    session,
    together,
    understand_call,
)
from uniemo_ray.service.app import BuildArgs, build_app
from uniemo_ray.service.backend import DEFAULT_MODEL, GenerationParams, ImageInput
from uniemo_ray.service.workers.image_generator import ImageGenerator
from uniemo_ray.service.workers.model_registry import ModelRegistry
from uniemo_ray.service.workers.understander import Understander

FLAT_MB = 150.0
REQUEST_TIMEOUT_S = 300
PARAMS = GenerationParams(DEFAULT_MODEL, {"awe": 1.0}, None, 1, 7, None, None, None, None, "condition", "png")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    measured: str
    bound: str
    is_met: bool


@dataclass(frozen=True)
class Bench:
    """A running service, the same model in this process, and how long to measure."""

    url: str
    arguments: BuildArgs
    photos: list[bytes]
    understander: Understander
    image_generator: ImageGenerator
    scale: float
    """Factor of all durations and counts. The bounds are stated for 1."""

    def seconds(self, full: float) -> float:
        """A duration."""
        return max(3.0, self.scale * full)

    def count(self, full: int) -> int:
        """A number of repetitions."""
        return max(2, round(self.scale * full))


def replicas(name: str = "") -> list[psutil.Process]:
    """Processes of our own replicas, by deployment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if f"ServeReplica:default:{name}" in words:
            found.append(process)
    return found


def replicas_mb() -> float:
    """Memory of all our replicas."""
    return sum(process.memory_info().rss for process in replicas()) / 1e6


def load_directly(arguments: BuildArgs) -> tuple[Understander, ImageGenerator]:
    """The model as the replicas load it."""
    registry = ModelRegistry(models={DEFAULT_MODEL: arguments.model}, threads=arguments.threads)
    loaded = registry.load(DEFAULT_MODEL)
    return registry.understander(loaded), registry.image_generator(loaded)


def latency(bench: Bench) -> list[Figure]:
    """One caller against direct calls, in turns, so that both see the same machine."""
    direct, served = asyncio.run(_in_turns(bench))
    figures = []
    for name, share, bound_ms in (("p50", 0.5, 6), ("p99", 0.99, 15)):
        bare, full = 1000 * percentile(direct, share), 1000 * percentile(served, share)
        measured = f"+{full - bare:.1f} ms ({full:.1f} against {bare:.1f})"
        figures.append(
            Figure(f"understand, 1 caller, {name}", measured, f"+{bound_ms} ms", full - bare <= bound_ms)
        )
    return figures


async def _in_turns(bench: Bench) -> tuple[list[float], list[float]]:
    """Seconds of direct calls and of requests on one connection, in turns: a model that has just waited
    finds the processor's caches cold, and a caller of either kind must not be the only one to pay for it."""
    ask, direct, served = understand_call(bench.url, bench.photos), [], []
    images = [ImageInput(data, False, DEFAULT_MODEL) for data in bench.photos]
    async with session() as opened:
        for _ in range(20):
            await ask(opened)
        for _ in range(bench.count(20)):
            for image in images:
                began = time.perf_counter()
                bench.understander.understand([image])
                direct.append(time.perf_counter() - began)
                began = time.perf_counter()
                await ask(opened)
                served.append(time.perf_counter() - began)
    return direct, served


def throughput(bench: Bench) -> list[Figure]:
    """Successful responses per second against offline batches of the same size, before and after."""
    images = [ImageInput(data, False, DEFAULT_MODEL) for data in bench.photos]
    inputs = images[: bench.arguments.understanding.batch_size]
    batch_size = bench.arguments.generation.batch_size
    kinds = {
        "understand, 64 callers": (
            understand_call(bench.url, bench.photos),
            lambda: bench.understander.understand(inputs),
            64,
        ),
        "generate, 16 callers": (
            generate_call(bench.url),
            lambda: bench.image_generator(bench.image_generator.image_requests(PARAMS) * batch_size),
            16,
        ),
    }
    figures = []
    for what, (ask, work, callers) in kinds.items():
        seconds = bench.seconds(30)
        work()
        before = _rate(work, seconds / 2)
        tally = asyncio.run(together(ask, callers=callers, seconds=seconds))
        offline = (before + _rate(work, seconds / 2)) / 2
        ratio = tally.rate / offline
        measured = f"{ratio:.2f} ({tally.rate:.1f}/s against {offline:.1f}/s; {tally.describe()})"
        figures.append(Figure(what, measured, "0.90", ratio >= 0.9 and set(tally.statuses) == {200}))
    return figures


def _rate(work: object, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        count += len(work())
    return count / (time.perf_counter() - began)


def overload(bench: Bench) -> list[Figure]:
    """Ten minutes at twice the capacity, measured just before."""
    ask, pool = generate_call(bench.url), bench.arguments.generation
    capacity = asyncio.run(together(ask, callers=16, seconds=bench.seconds(20))).rate
    bound_s = 1.5 * (pool.queue + pool.batches_held * pool.batch_size) / capacity
    asyncio.run(at_rate(ask, per_s=2 * capacity, seconds=bench.seconds(60)))
    before = replicas_mb()
    tally = asyncio.run(at_rate(ask, per_s=2 * capacity, seconds=bench.seconds(600)))
    grown = replicas_mb() - before
    measured = (
        f"{2 * capacity:.1f}/s for {bench.seconds(600):.0f} s: {tally.describe()}; "
        f"p99 of accepted {tally.percentile(0.99):.1f} s; memory {grown:+.0f} MB"
    )
    is_met = set(tally.statuses) <= {200, 429, 503} and tally.percentile(0.99) <= bound_s and grown < FLAT_MB
    return [Figure("twice the capacity", measured, f"200/429/503, p99 {bound_s:.1f} s, flat", is_met)]


def updates(bench: Bench) -> list[Figure]:
    """A new version under load, and a model that does not exist."""
    figures = []
    changed = bench.arguments.model_copy(
        update={"limits": bench.arguments.limits.model_copy(update={"names": 19})}
    )
    missing = bench.arguments.model_copy(update={"model": "/nonexistent/model"})
    for what, arguments in (("a new version", changed), ("a bad model", missing)):
        was_refused = False
        understand, generate = understand_call(bench.url, bench.photos), generate_call(bench.url)
        with loaded(understand, callers=8) as understood, loaded(generate, callers=4) as generated:
            try:
                serve.run(build_app(arguments))
            except RuntimeError:
                was_refused = True
            time.sleep(2)
        measured = f"understand {understood.describe()}, generate {generated.describe()}"
        measured += "; refused" if was_refused else ""
        statuses = {*understood.statuses, *generated.statuses}
        is_met = statuses == {200} and was_refused == (arguments is missing)
        figures.append(Figure(f"{what} under load", measured, "only 200", is_met))
    serve.run(build_app(bench.arguments))
    return figures


def mutated(bench: Bench) -> list[Figure]:
    """Broken and hostile files, eight at a time."""
    before_ids, before = sorted(p.pid for p in replicas()), 0.0
    statuses: Counter[int] = Counter()

    async def send(count: int, seed: int) -> None:
        files = mutants(count, seed=seed)

        async def call(opened: aiohttp.ClientSession) -> None:
            for file in files:
                headers = {"content-type": file.media_type} if file.media_type else {}
                address = f"{bench.url}/v1/understand"
                async with opened.post(
                    address, data=file.data, headers=headers, skip_auto_headers=["content-type"]
                ) as got:
                    await got.read()
                    statuses[got.status] += 1

        async with session() as opened:
            await asyncio.gather(*(call(opened) for _ in range(8)))

    asyncio.run(send(bench.count(500), 1))
    before = replicas_mb()
    statuses.clear()
    asyncio.run(send(bench.count(10_000), 0))
    grown, is_same = replicas_mb() - before, sorted(p.pid for p in replicas()) == before_ids
    described = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    measured = f"{described}; memory {grown:+.0f} MB; {'no restart' if is_same else 'RESTARTED'}"
    is_met = max(statuses) < 500 and is_same and grown < FLAT_MB
    return [Figure("mutated images", measured, "no 5xx, no restart, flat", is_met)]


def conformance(bench: Bench) -> list[Figure]:
    """Schemathesis on the description, all checks, every phase.

    Requests are small and the queue is long: a correct 503 for a full queue would count as a failure.
    """
    tool = Path(sys.executable).with_name("schemathesis")
    program = str(tool) if tool.exists() else shutil.which("schemathesis")
    if program is None:
        return [Figure("schemathesis", "not installed: pip install -e .[dev]", "0 failures", False)]
    arguments = bench.arguments
    limits = arguments.limits.model_copy(update={"steps": 3, "n": 2, "side_px": 64})
    generation = arguments.generation.model_copy(update={"queue": 10_000})
    serve.run(build_app(arguments.model_copy(update={"limits": limits, "generation": generation})))
    command = [program, "run", f"{bench.url}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"]
    command += ["--request-timeout", str(REQUEST_TIMEOUT_S)]
    here = {"SCHEMATHESIS_HOOKS": "benchmarks.schema_hooks", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*command, "--max-examples", str(bench.count(100))],
        env=os.environ | here,
        capture_output=True,
        text=True,
        check=False,
    )
    serve.run(build_app(arguments))
    last = [line for line in done.stdout.splitlines() if line.strip()][-1:]
    if done.returncode:
        print(done.stdout)
    return [Figure("schemathesis", " ".join(last).strip("= "), "0 failures", done.returncode == 0)]
