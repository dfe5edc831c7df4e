"""What else is measured of kickserve: batches, its start, several workers, a million requests."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kickserve.features import named
from kickserve_data.simulate import simulate
from ops.bench import processes, wrk
from ops.bench.contenders import API, BY_NAME, KEY, Running
from ops.bench.figures import MANY, Tally

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

BATCH: Final = 10_000
CALLS: Final = 24
STARTS: Final = 5
MILLION: Final = 1_000_000
SEED: Final = 11
WORKERS: Final = (1, 2)
CROWD: Final = 128  # connections: the system spreads few unevenly over the workers
STRETCH: Final = 10.0  # seconds of load at a time, until there are a million


def folder(work: Path) -> AbstractContextManager[str]:
    """Make an empty folder for a server, which is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="run-", dir=work)


def batch(work: Path, core: int | None, calls: int = CALLS) -> tuple[dict[str, Any], Tally]:
    """Measure batches, one after the other; each begins when the one before has reached the database."""
    body = msgspec.json.encode([named(row) for row in simulate(BATCH, SEED).matrix.tolist()])
    tally = Tally("kickserve, batches")
    with folder(work) as where:
        running = Running(BY_NAME["kickserve"], Path(where), core)
        try:
            _post(running, body)  # warms it up
            running.drained()
            used = running.server.cpu()
            times, drains = [], []
            for _ in range(calls):
                times.append(_post(running, body))
                drains.append(running.drained())
            used = running.server.cpu() - used
        finally:
            running.server.end()
        tally.add((calls + 1) * BATCH)
        tally.stored = running.stored()
    figures = {
        "kicks_a_call": BATCH,
        "calls": calls,
        "kicks_per_second": BATCH / median(times),
        "kicks_per_second_stored": calls * BATCH / sum(times + drains),
        "kicks_per_cpu_second": calls * BATCH / used,
    }
    return figures, tally


def _post(running: Running, body: bytes) -> float:
    """Send a batch; return the seconds until its whole answer was here."""
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    began = time.perf_counter()
    status, _ = running.server.ask("POST", f"{API}/predict/batch", body, headers)
    took = time.perf_counter() - began
    if status != processes.OK:
        raise SystemExit(f"a batch was answered with {status}:\n{running.server.log()}")
    return took


def startup(work: Path, core: int | None, starts: int = STARTS) -> dict[str, Any]:
    """Measure the seconds from the start of the process until `/health/ready` answers 200."""
    times = []
    for _ in range(starts):
        with folder(work) as where:
            running = Running(BY_NAME["kickserve"], Path(where), core)
            times.append(running.server.start_seconds)
            running.server.end()
    return {"starts": starts, "seconds": median(times), "longest": max(times)}


def workers(work: Path, bodies: Path, rounds: int, seconds: int) -> tuple[dict[str, Any], list[Tally]]:
    """Measure one and two workers in turns. They and the load share all cores: nothing is pinned."""
    tallies = {number: Tally(f"kickserve, workers: {number}") for number in WORKERS}
    rates: dict[int, list[float]] = {number: [] for number in WORKERS}
    with processes.unpinned():
        for _ in range(rounds):
            for number, tally in tallies.items():
                rates[number].append(_crowd(work, bodies, number, seconds, tally))
    one, two = (rates[number] for number in WORKERS)
    ratios = [more / less for less, more in zip(one, two, strict=True)]
    middle = {str(number): median(each) for number, each in rates.items()}
    return {"requests_per_second": middle, "ratio": median(ratios)}, [*tallies.values()]


def _crowd(work: Path, bodies: Path, number: int, seconds: int, tally: Tally) -> float:
    one = BY_NAME["kickserve"]
    settings = {**one.settings, "KICKSERVE_WORKERS": str(number)}
    with folder(work) as where:
        running = Running(replace(one, settings=settings), Path(where), None)
        try:
            load, _ = wrk.run(running.url, CROWD, seconds, bodies, KEY)
            tally.add(load.requests, cut=CROWD, errors=load.errors)
            running.drained()
        finally:
            running.server.end()
        tally.stored = (tally.stored or 0) + (running.stored() or 0)
    return load.requests / load.seconds


def million(
    work: Path, core: int | None, bodies: Path, requests: int = MILLION
) -> tuple[dict[str, Any], Tally]:
    """Measure the memory at the start, warm, and after a million requests."""
    tally = Tally("kickserve, memory")
    memory = {}
    with folder(work) as where:
        running = Running(BY_NAME["kickserve"], Path(where), core)
        try:
            memory["started"] = running.server.memory()
            _load(running, tally, bodies, 1.0)
            memory["warm"] = running.server.memory()
            while tally.answered < requests and not tally.errors:
                _load(running, tally, bodies, STRETCH)
            memory["afterwards"] = running.server.memory()
        finally:
            running.server.end()
        tally.stored = running.stored()
    shown = {stage: {"rss_mb": rss, "uss_mb": uss} for stage, (rss, uss) in memory.items()}
    return {"requests": tally.answered, **shown}, tally


def _load(running: Running, tally: Tally, bodies: Path, seconds: float) -> None:
    load, _ = wrk.run(running.url, MANY, seconds, bodies, KEY)
    tally.add(load.requests, cut=MANY, errors=load.errors)
    running.drained()
