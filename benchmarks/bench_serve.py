"""The HTTP service against direct calls of the same model: added latency, kept throughput, overload.

Everything is measured in one run on one machine, which the caller shares with the service: what the caller
needs counts against the service.
"""

import argparse
import asyncio
import io
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil
import ray
from PIL import Image
from ray import serve

from serve.app import BuildArgs, build_app
from serve.backend import DEFAULT_MODEL, Look, Order
from serve.models.library import Library
from serve.pool import Pool
from serve.settings import Limits

PORT = 8123
URL = f"http://127.0.0.1:{PORT}"
BATCH = 8


def photo(seed: int) -> bytes:
    """As large a file as a photograph of this size: coarse noise, smoothed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def milliseconds(times: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(times)
    return 1000 * statistics.median(ordered), 1000 * ordered[int(0.99 * (len(ordered) - 1))]


def direct(model: str, photos: list[bytes], order: Order, seconds: float) -> tuple[list[float], float, float]:
    """Latencies of single looks, looks a second and images a second in batches, without any service."""
    library = Library(models={DEFAULT_MODEL: model})
    loaded = library.load(DEFAULT_MODEL)
    understander, illustrator = library.understander(loaded), library.illustrator(loaded)
    looks = [Look(data, False, DEFAULT_MODEL) for data in photos]
    understander(looks[:4])
    times = []
    for look in looks * 4:
        began = time.perf_counter()
        understander([look])
        times.append(time.perf_counter() - began)
    rates = []
    for work in (lambda: understander(looks[:BATCH]), lambda: illustrator(illustrator.tickets(order) * 4)):
        work()
        began, count = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            count += len(work())
        rates.append(count / (time.perf_counter() - began))
    return times, rates[0], rates[1]


async def one_by_one(photos: list[bytes]) -> list[float]:
    async with httpx.AsyncClient(base_url=URL, timeout=60) as client:
        times = []
        for data in [*photos[:8], *photos * 4]:
            began = time.perf_counter()
            (await client.post("/v1/understand", content=data)).raise_for_status()
            times.append(time.perf_counter() - began)
        return times[8:]


async def together(ask, callers: int, seconds: float) -> tuple[float, Counter[int], list[float]]:
    """Good answers a second, statuses, and times of good answers."""
    counts: Counter[int] = Counter()
    times: list[float] = []
    limits = httpx.Limits(max_connections=callers)
    async with httpx.AsyncClient(base_url=URL, timeout=300, limits=limits) as client:
        end = time.perf_counter() + seconds

        async def call() -> None:
            while (began := time.perf_counter()) < end:
                response = await ask(client)
                counts[response.status_code] += 1
                if response.status_code == 200:
                    times.append(time.perf_counter() - began)
                else:
                    await asyncio.sleep(0.2)

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return counts[200] / (time.perf_counter() - began), counts, times


def replicas_mb() -> float:
    """Memory of all replicas."""
    processes = psutil.process_iter(["cmdline"])
    replicas = [p for p in processes if "ServeReplica" in " ".join(p.info["cmdline"] or [])]
    return sum(replica.memory_info().rss for replica in replicas) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="runs/demo/model", help="model folder, as the demo leaves it")
    parser.add_argument("--seconds", type=float, default=20, help="of each throughput")
    parser.add_argument("--overload-seconds", type=float, default=60, help="the stated bound is for 600")
    options = parser.parse_args()
    model = str(Path(options.model).resolve())
    photos = [photo(seed) for seed in range(50)]
    order = Order(DEFAULT_MODEL, {"awe": 1.0}, None, 1, 7, None, None, None, None, "condition", "png")
    bare_times, bare_looks, bare_images = direct(model, photos, order, options.seconds)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as store:
        measure(model, store, photos, options, bare=(bare_times, bare_looks, bare_images))
    ray.shutdown()


def measure(model: str, store: str, photos: list[bytes], options, *, bare) -> None:
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    limits = Limits(requests_per_minute=10_000_000, concurrent_requests=500)
    pool = Pool(num_cpus=0.5, batch_size=BATCH, queue=64)
    serve.run(
        build_app(BuildArgs(model=model, store=store, understanding=pool, generation=pool, limits=limits))
    )
    bare_times, bare_looks, bare_images = bare

    async def look(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/understand", content=photos[0])

    async def paint(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/generate", json={"emotion": "awe"}, headers={"accept": "image/png"})

    (b50, b99), (h50, h99) = milliseconds(bare_times), milliseconds(asyncio.run(one_by_one(photos)))
    print(f"understand, one caller: p50 {h50:.1f} ms (+{h50 - b50:.1f}), p99 {h99:.1f} ms (+{h99 - b99:.1f})")
    rate, counts, _ = asyncio.run(together(look, 64, options.seconds))
    print(
        f"understand, 64 callers: {rate:.1f}/s, direct {bare_looks:.1f}/s, "
        f"ratio {rate / bare_looks:.2f}, {dict(counts)}"
    )
    rate, counts, _ = asyncio.run(together(paint, 2 * BATCH, options.seconds))
    print(
        f"generate, {2 * BATCH} callers: {rate:.2f}/s, direct {bare_images:.2f}/s, "
        f"ratio {rate / bare_images:.2f}, {dict(counts)}"
    )
    before = replicas_mb()
    _, counts, times = asyncio.run(together(paint, 200, options.overload_seconds))
    p99 = milliseconds(times)[1] / 1000
    print(
        f"generate, 200 callers: {dict(counts)}, p99 of accepted {p99:.1f} s, "
        f"memory {before:.0f} -> {replicas_mb():.0f} MB"
    )


if __name__ == "__main__":
    main()
