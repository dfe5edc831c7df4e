"""Runs the service for an hour at half load, with everything that happens in a year: does it age?

It starts its own Postgres, service and, where there is one, Chromium. On the way reports of drift are asked
for, the model is loaded anew, pages are open, the history is read and exported, outcomes are set, metrics
scraped, old predictions removed, and Postgres is stopped three times.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import numpy as np
from postgres import Cluster, running
from rich.console import Group
from serving import Server, eventually

from kickserve.settings import Settings
from kickserve_storage import create_plugin
from kickserve_testing.contract_samples import keep, record_at
from ops.bench.common import Server as BareServer
from ops.chaos.common import ended, stored_in
from ops.chaos.vitals import Sample, Watched, sparkline, thirds, typical, verdicts
from ops.clients import ID_BYTES, OK, Clients, counted
from ops.commands import Report, progress, table

if TYPE_CHECKING:
    from ops.commands import Row

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 16
PEAK_SECONDS = 20.0  # with a start of each thing that goes on beside
WARM_SHARE = 0.2  # of the time; all that happens at all has happened once by then
OUTAGES = (0.08, 0.4, 0.75)  # when Postgres is stopped, as shares of the time
OUTAGE_SECONDS = 5.0
SAMPLES = 360  # each ten seconds, of an hour
LAPS = 6  # of which times are taken together: a minute, of an hour
SHORTEST = 0.4  # minutes
JUDGED = 5  # minutes: in less, visits that come once a minute come in one third and not in another
KEEP_DAYS = 30
OLD = 30_000  # predictions that are too old from the beginning
DRAINED = 1_000  # bytes of a journal that holds nothing
BARE_RATE = 50.0  # a second: enough for a percentile of ten seconds, and nothing beside the service's
BARE = ROOT / "ops" / "bench" / "peers" / "bare.py"


async def long(minutes: float = 60.0) -> Report:
    """Run an hour at half load with reports, reloads, open pages and outages; fail where the service ages.

    That is where an answered prediction is not in the store exactly once, or where, from the first third
    after the warm-up (a fifth of the time) to the last, memory grew by more than 5 %, handles or threads that
    no client holds became more, or the p99 of a minute grew by over a quarter more than that of a bare app
    did, which is asked beside the service. In less than five minutes growth is shown, and not judged.

    Args:
        minutes: how long.
    """
    if minutes < SHORTEST:
        raise SystemExit(f"--minutes {minutes:g} leaves nothing beside the outages: {SHORTEST} at least")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else all that it has started would go on
    duration = minutes * 60
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-long-")))
        await old_predictions(cluster.url)
        journals = folder / "journal"
        server = Server(
            folder,
            DATABASE_URL=cluster.url,
            KICKSERVE_PLUGINS="storage,ui,metrics",
            KICKSERVE_RETENTION=f"{KEEP_DAYS}d",
            KICKSERVE_JOURNAL_DIR=str(journals),
        )
        stack.callback(server.close)
        # In a short run, all comes more often. In a process of its own: it would take time from the clients.
        pace = min(1.0, max(duration / 3600, 0.1))
        command = [sys.executable, "-m", "ops.chaos.beside", server.url, str(pace)]
        beside = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        stack.callback(beside.terminate)
        watched = Watched(server.process.pid, journals)
        hasty = Clients(server.url, connections=CONNECTIONS, lasting=True)
        peak = await measured_peak(hasty, watched)
        progress.print(f"peak {peak:,.0f} predictions a second, kept; now {peak / 2:,.0f}")
        bare = await bare_clients(stack)
        clients = Clients(server.url, connections=CONNECTIONS, rate=peak / 2, lasting=True)
        samples = await watch(watched, clients, bare, cluster, duration)
        beside.terminate()
        done: Row = json.loads((await asyncio.to_thread(beside.communicate, timeout=60))[0])
        await asyncio.gather(clients.end(), bare.end())
        code = await ended(server)
        stored, old = await stored_in(cluster.url, folder), await too_old(cluster.url)
    early, late = thirds(samples, WARM_SHARE * duration)
    return judged(
        {
            "minutes": minutes,
            "peak_per_second": peak,
            "statuses": dict(clients.statuses + hasty.statuses),
            **done,
            "exit_code": code,
            "too_old": old,
            **counted(hasty.ids + clients.ids, stored),
            "samples": [each._asdict() for each in samples],
            "log": [line[:400] for line in server.log if _alarming(line)][:20],
            "verdicts": [each._asdict() for each in verdicts(early, late)],
            "bare_p99_ms": [typical(part, "bare_p99_ms") for part in (early, late)],
        }
    )


def judged(found: Row) -> Report:
    """Return the report of a run: whether all answers were 200 and are stored, and nothing has grown."""
    nothing = ("lost", "twice", "too_old", "exit_code", "unexpected", "log")
    level = found["minutes"] < JUDGED or all(each["passed"] for each in found["verdicts"])
    passed = level and set(found["statuses"]) == {str(OK)} and not any(map(found.get, nothing))
    return Report({**found, "passed": passed}, shown(found, passed), passed)


async def bare_clients(stack: ExitStack) -> Clients:
    """Start the least that the same server can serve, and ask it at a low, steady rate.

    What happens to its answers happens to the service's too, and is none of the service's doing: the
    machine's other work, and stalls of the clients themselves.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-bare-")))
    command = [sys.executable, str(BARE), "{port}"]
    bare = await asyncio.to_thread(BareServer, command, folder, {}, ready="/")
    stack.callback(bare.end)
    return Clients(f"{bare.url}/api/v1", connections=1, rate=BARE_RATE)


async def old_predictions(url: str) -> None:
    """Store some that retention has to remove: whole months, and a part of one."""
    store = create_plugin(Settings()).create_store(url)
    await store.open()
    end = int((time.time() - (KEEP_DAYS + 3) * 86_400) * 1000)
    for start in range(0, OLD, 5_000):
        await keep(store, [record_at(end - at * 300_000) for at in range(start, start + 5_000)])
    await store.close()


async def too_old(url: str) -> int:
    """Return how many predictions are stored that retention had to remove."""
    connection = await asyncpg.connect(url)
    limit = datetime.now(UTC) - timedelta(days=KEEP_DAYS)
    found: int = await connection.fetchval("SELECT count(*) FROM predictions WHERE created_at < $1", limit)
    await connection.close()
    return found


async def measured_peak(clients: Clients, watched: Watched) -> float:
    """Let clients ask as fast as they can, beside all else that goes on; return predictions a second.

    The time until the store has them all counts: more could not be kept up for long.
    """
    began = time.perf_counter()
    await asyncio.sleep(PEAK_SECONDS)
    await clients.end()
    await eventually(lambda: watched.look()["journal_bytes"] <= DRAINED)
    return len(clients.ids) / ID_BYTES / (time.perf_counter() - began)


async def watch(
    watched: Watched, clients: Clients, bare: Clients, cluster: Cluster, duration: float
) -> list[Sample]:
    """Look at regular times until the end; stop Postgres when it is due.

    Times are those of the last minute: visitors have their turn in each minute, and not in each ten seconds.
    """
    laps: deque[list[float]] = deque(maxlen=LAPS)
    bare_laps: deque[list[float]] = deque(maxlen=LAPS)
    samples: list[Sample] = []
    outages = [share * duration for share in OUTAGES]
    began = last = time.perf_counter()
    since_outage = LAPS + 1
    while last - began < duration:
        if outages and last - began > outages[0]:
            outages.pop(0)
            since_outage = 0
            await asyncio.to_thread(cluster.stop)
            await asyncio.sleep(OUTAGE_SECONDS)
            await asyncio.to_thread(cluster.start)
        await asyncio.sleep(duration / SAMPLES)
        laps.append(clients.lap())
        bare_laps.append(bare.lap())
        since_outage += 1
        now = time.perf_counter()
        times, bare_times = (np.concatenate(each) if any(each) else [0.0] for each in (laps, bare_laps))
        sample = Sample(
            now - began,
            **await asyncio.to_thread(watched.look),
            rate=len(laps[-1]) / (now - last),
            p50_ms=float(np.percentile(times, 50)),
            p99_ms=float(np.percentile(times, 99)),
            bare_p99_ms=float(np.percentile(bare_times, 99)),
            troubled=since_outage <= LAPS,
        )
        last = now
        samples.append(sample)
        progress.print(
            f"{sample.seconds:6.0f} s  {sample.rate:7,.0f}/s"
            f"  p99 {sample.p99_ms:6.1f} ms (bare app {sample.bare_p99_ms:.1f})  {sample.pss_mb:6.1f} MB"
            f"  {sample.handles} handles  {sample.threads} threads  journal {sample.journal_bytes:,}"
            f"{'  the store was away' if sample.troubled else ''}"
        )
    return samples


def _alarming(line: str) -> bool:
    """Say whether a line of the log is an error other than an absent store."""
    return '"level":"error"' in line and "StoreUnavailable" not in line


def shown(found: Row, passed: bool) -> Group:
    """Lay it out for a person."""
    names = ("first third", "last third", "may be")
    rows = [
        {"after the warm-up": what, **dict(zip(names, numbers, strict=True)), "passed": level}
        for what, *numbers, level in (each.values() for each in found["verdicts"])
    ]
    lines = []
    for name in ("pss_mb", "handles", "threads", "p50_ms", "p99_ms", "bare_p99_ms", "rate", "journal_bytes"):
        values = [each[name] for each in found["samples"]]
        lines.append(f"{name:14}{sparkline(values)}  {min(values):,.1f} to {max(values):,.1f}")
    lines.append("bare app beside, p99: {:.1f} and {:.1f} ms".format(*found["bare_p99_ms"]))
    counts = ("answered", "stored", "lost", "twice", "too_old", "exit_code", "statuses", "beside")
    lines += [f"{name}: {found[name]}" for name in counts]
    lines += [*map(str, found["unexpected"][:10]), *found["log"][:10]]
    if found["minutes"] < JUDGED:
        lines.append(f"growth is judged in {JUDGED} minutes or more")
    return Group(table(rows), *lines, "passed" if passed else "[red]FAILED")
