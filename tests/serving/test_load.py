"""Many clients at once: every job is made, in turn, and memory does not grow with their number."""

from __future__ import annotations

import gc
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.world import PAIR, FakeModel, pair, serving, shot
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits

LIMITS = Limits(free_megabytes=0, requests_per_minute=10**7, jobs_per_client=10**4, all_jobs=10**4)


def resident() -> int:
    """Bytes of memory that this process has."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.slow
def test_fifty_clients_send_two_hundred_jobs_of_three_sizes(tmp_path: Path) -> None:
    model = FakeModel(seconds=0.005)
    with serving(tmp_path, model, limits=LIMITS, batch_size=4) as server:
        clients = [Client(server.url) for _ in range(50)]

        def send(number: int) -> tuple[int, str]:
            size = {"height": 64 * (1 + number % 3)}
            return number, clients[number % 50].submit(pair(number, options=size), PAIR)["id"]

        start = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            jobs = dict(pool.map(send, range(200)))
            states = list(pool.map(lambda item: clients[item[0] % 50].wait(item[1])["state"], jobs.items()))
        seconds = time.monotonic() - start
        assert states == ["done"] * 200 and sorted(seed for batch in model.batches for seed in batch) == list(
            range(200)
        )
        ends: dict[int, list[float]] = defaultdict(list)
        for number, id in jobs.items():
            ends[number % 50].append(clients[number % 50].job(id)["finished"])
        last = [max(times) for times in ends.values()]
        print(f"\n200 jobs of 50 clients: {seconds:.1f} s, {len(model.batches)} batches", end="")
        print(f", last of each client within {max(last) - min(last):.1f} s, deviation {statistics.pstdev(last):.2f} s")


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_jobs(tmp_path: Path) -> None:
    with serving(tmp_path, limits=LIMITS, batch_size=4) as server:
        client, sizes = Client(server.url), []
        for part in range(10):
            ids = [client.submit(pair(100 * part + number), PAIR)["id"] for number in range(100)]
            for id in ids:
                client.wait(id)
                client.remove(id)
            gc.collect()  # which tests put off
            sizes.append(resident())
        print("\nMB after each hundred jobs:", *(size // 10**6 for size in sizes))
        assert sizes[-1] - sizes[2] < 50 * 10**6


@pytest.mark.slow
def test_a_short_job_is_not_kept_waiting_by_a_long_shot(tmp_path: Path) -> None:
    with serving(tmp_path, FakeModel(seconds=0.05), limits=LIMITS) as server:
        busy, short = Client(server.url), Client(server.url)
        request, pictures = shot(20)
        long = busy.submit(request, pictures)["id"]
        time.sleep(0.5)
        waits = []
        for seed in range(5):
            start = time.monotonic()
            short.wait(short.submit(pair(seed), PAIR)["id"])
            waits.append(time.monotonic() - start)
        print("\nseconds of short jobs, 0.2 each alone:", *(f"{wait:.2f}" for wait in waits))
        assert max(waits) < 2 and busy.job(long)["state"] == "running"
        busy.cancel(long)
