"""Replicas that are killed under load: what callers get, and how long it takes until they are answered."""

import os
import signal
import time
from collections.abc import Iterator

from ray import serve

from benchmarks.serve_figures import Bench, Figure, replicas
from benchmarks.serve_load import Ask, generate_call, loaded, median, understand_call
from uniemo_ray.service.app import build_app

BACK_WITHIN_S = 10.0


def kills(bench: Bench) -> Iterator[Figure]:
    """Replicas that end in the middle of their work, again and again: the only one of its kind (how long its
    successor takes), and one of two, as a service in production has them."""
    for copies, times in ((1, bench.count(5)), (2, bench.count(20))):
        pools = {
            name: getattr(bench.arguments, name).model_copy(update={"min_replicas": copies})
            for name in ("understanding", "generation")
        }
        arguments = bench.arguments.model_copy(update=pools | {"endpoint_replicas": copies})
        serve.run(build_app(arguments))
        understand, generate = understand_call(bench.url, bench.photos), generate_call(bench.url)
        yield _killed("Endpoint", copies, understand, times)
        yield _killed("Generation", copies, generate, times)
        # endpoints understand pictures too: only so does every one depend on the replicas for it
        serve.run(build_app(arguments.model_copy(update={"inline_inference": False})))
        yield _killed("Understanding", copies, understand, times)
    serve.run(build_app(bench.arguments))


def _killed(name: str, copies: int, ask: Ask, times: int) -> Figure:
    backs: list[float] = []
    successors: list[float] = []
    with loaded(ask, callers=16) as tally:
        for _ in range(times):
            _wait_for(lambda: tally.statuses[200] > 20 and _running(name) >= copies)
            victim = replicas(name)[-1].pid
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            _wait_for(lambda pid=victim: _running_without(pid, name) >= copies, every_s=0.25)
            successors.append(time.monotonic() - killed_at)
            _wait_for(lambda at=killed_at: sum(t > at + 0.2 for t in tally.finished_at[-40:]) > 20)
            backs.append(next(t for t in tally.finished_at if t > killed_at + 0.2) - killed_at)
    away = f"back after {median(backs):.1f} s, at most {max(backs):.1f} s"
    whole = f"its successor after {median(successors):.1f} s, at most {max(successors):.1f} s"
    measured = f"{len(backs)} times: {tally.describe()}; {away}; {whole}"
    is_met = set(tally.statuses) <= {200, 503} and max(*backs, *successors) <= BACK_WITHIN_S
    what = f"{name} replica SIGKILLed, {'the only one' if copies == 1 else f'one of {copies}'}"
    return Figure(what, measured, f"200/503, {BACK_WITHIN_S:.0f} s", is_met)


def _running(name: str) -> int:
    """Replicas that take requests, by Serve's own count."""
    deployments = serve.status().applications["default"].deployments
    return deployments[name].replica_states.get("RUNNING", 0)


def _running_without(pid: int, name: str) -> int:
    """Replicas that take requests, without the killed process, which Serve counts for a moment."""
    others = [process for process in replicas(name) if process.pid != pid]
    return min(len(others), _running(name))


def _wait_for(is_so: object, *, timeout_s: float = 120, every_s: float = 0.05) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"the service did not come back within {timeout_s:g} s")
        time.sleep(every_s)
