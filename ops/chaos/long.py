"""Runs the service for an hour at half load, with everything that happens in a year: does it age?

`just chaos long`, or `just chaos long --minutes 5`. It starts its own Postgres, service and, where there is
one, Chromium. On the way reports of drift are asked for, the model is loaded anew, pages are open, the
history is read and exported, outcomes are set, metrics scraped, old predictions removed, and Postgres is
stopped three times.

Ends with 1 where an answered prediction is not in the store exactly once, or where, from the first third
after the warm-up (a fifth of the time) to the last, memory grew by more than 5 %, handles or threads that
no client holds became more, or the p99 of a minute grew by over a quarter more than that of a bare app
did, which is asked beside the service on the same server.
"""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
from postgres import Cluster, running
from rich.console import Console
from rich.table import Table
from serving import Server

from kickserve.settings import Settings
from kickserve_storage import create_plugin
from kickserve_testing.contract_samples import keep, record_at
from ops.bench.common import Server as BareServer
from ops.chaos.clients import ID_BYTES, OK, Clients, counted
from ops.chaos.vitals import Sample, Verdict, Watched, sparkline, thirds, typical, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 16
PEAK_SECONDS = 20.0  # with a start of each thing that goes on beside
WARM_SHARE = 0.2  # of the time; all that happens at all has happened once by then
OUTAGES = (0.08, 0.4, 0.75)  # when Postgres is stopped, as shares of the time
OUTAGE_SECONDS = 5.0
SAMPLES = 360  # each ten seconds, of an hour
LAPS = 6  # of which times are taken together: a minute, of an hour
KEEP_DAYS = 30
OLD = 30_000  # predictions that are too old from the beginning
DRAINED = 1_000  # bytes of a journal that holds nothing
BARE_RATE = 50.0  # a second: enough for a percentile of ten seconds, and nothing beside the service's
BARE = ROOT / "ops" / "bench" / "peers" / "bare.py"


class Beside:
    """The process of all that goes on beside the predictions.

    Args:
        url: of the API.
        pace: by how much the seconds between two of a kind are shortened.
    """

    def __init__(self, url: str, pace: float) -> None:
        command = [sys.executable, "-m", "ops.chaos.beside", url, str(pace)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def end(self) -> dict[str, Any]:
        """End it, and return its figures."""
        self._process.terminate()
        found: dict[str, Any] = json.loads(self._process.communicate(timeout=60)[0])
        return found

    def close(self) -> None:
        """Make sure that it is gone, with its browser."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()


async def bare_clients(stack: ExitStack) -> Clients:
    """Start the least that the same server can serve, and ask it at a low, steady rate.

    What happens to its answers happens to the service's too, and is none of the service's doing: the
    machine's other work, and stalls of the clients themselves.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-bare-")))
    command = [sys.executable, str(BARE), "{port}"]
    bare = await asyncio.to_thread(BareServer, command, folder, {}, ready="/")
    stack.callback(bare.end)
    return Clients(f"{bare.url}/api/v1", 1, BARE_RATE)


async def old_predictions(url: str) -> None:
    """Store some that retention has to remove: whole months, and a part of one."""
    store = create_plugin(Settings()).create_store(url)
    await store.open()
    end = int((time.time() - (KEEP_DAYS + 3) * 86_400) * 1000)
    for start in range(0, OLD, 5_000):
        await keep(store, [record_at(end - at * 300_000) for at in range(start, start + 5_000)])
    await store.close()


async def ids_in(url: str) -> tuple[bytes, int]:
    """Return the ids that are stored, 16 bytes each, and how many are too old."""
    connection = await asyncpg.connect(url)
    try:
        ids = bytearray()
        async with connection.transaction():
            async for row in connection.cursor("SELECT uuid_send(id) FROM predictions", prefetch=10_000):
                ids += row[0]
        limit = datetime.now(UTC) - timedelta(days=KEEP_DAYS)
        old = await connection.fetchval("SELECT count(*) FROM predictions WHERE created_at < $1", limit)
        return bytes(ids), old
    finally:
        await connection.close()


async def measured_peak(clients: Clients, watched: Watched) -> float:
    """Let clients ask as fast as they can, beside all else that goes on; return predictions a second.

    The time until the store has them all counts: more could not be kept up for long.
    """
    began = time.perf_counter()
    await asyncio.sleep(PEAK_SECONDS)
    await clients.end()
    async with asyncio.timeout(120):
        while watched.look()["journal_bytes"] > DRAINED:
            await asyncio.sleep(0.1)
    return len(clients.ids) / ID_BYTES / (time.perf_counter() - began)


class Laps:
    """Times of the answers of the last minute.

    Visitors have their turn in each minute, and not in each ten seconds: the figures of ten seconds would
    depend on whether a page was opened in them.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._laps: deque[NDArray[np.float32]] = deque(maxlen=LAPS)

    def lap(self) -> int:
        """Take what has come; return how many answers."""
        self._laps.append(np.array(self._clients.lap(), dtype=np.float32))
        return len(self._laps[-1])

    def percentiles(self) -> tuple[float, float]:
        """Return the median and the 99th percentile, ms; 0 where there were no answers."""
        times = np.concatenate(self._laps)
        return tuple(np.percentile(times, (50, 99)).tolist()) if len(times) else (0.0, 0.0)


async def watch(
    watched: Watched,
    clients: Clients,
    bare: Clients,
    cluster: Cluster,
    duration: float,
    say: Callable[[Sample], None],
) -> list[Sample]:
    """Look at regular times until the end; stop Postgres when it is due."""
    every = duration / SAMPLES
    laps, bare_laps = Laps(clients), Laps(bare)
    samples: list[Sample] = []
    outages = [share * duration for share in OUTAGES]
    began = time.perf_counter()
    last, since_outage = began, LAPS + 1
    while (now := time.perf_counter()) - began < duration:
        if outages and now - began > outages[0]:
            outages.pop(0)
            since_outage = 0
            await asyncio.to_thread(cluster.stop)
            await asyncio.sleep(OUTAGE_SECONDS)
            await asyncio.to_thread(cluster.start)
        await asyncio.sleep(every)
        now = time.perf_counter()
        rate = laps.lap() / (now - last)
        bare_laps.lap()
        last = now
        since_outage += 1
        p50, p99 = laps.percentiles()
        sample = Sample(
            now - began,
            **await asyncio.to_thread(watched.look),
            rate=rate,
            p50_ms=p50,
            p99_ms=p99,
            bare_p99_ms=bare_laps.percentiles()[1],
            troubled=since_outage <= LAPS,
        )
        samples.append(sample)
        say(sample)
    return samples


async def run(
    stack: ExitStack, cluster: Cluster, duration: float, say: Callable[[Any], None]
) -> dict[str, Any]:
    """Run it all; return what was found."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-long-")))
    await old_predictions(cluster.url)
    journals = folder / "journal"
    server = Server(
        folder,
        DATABASE_URL=cluster.url,
        KICKSERVE_PLUGINS="storage,ui,drift,metrics",
        KICKSERVE_RETENTION=f"{KEEP_DAYS}d",
        KICKSERVE_JOURNAL_DIR=str(journals),
    )
    stack.callback(server.close)
    pace = min(1.0, max(duration / 3600, 0.1))  # in a short run, all comes more often
    beside = Beside(server.url, pace)
    stack.callback(beside.close)
    watched = Watched(server.process.pid, journals)
    hasty = Clients(server.url, CONNECTIONS)
    peak = await measured_peak(hasty, watched)
    say(f"peak {peak:,.0f} predictions a second, kept; now {peak / 2:,.0f}")
    bare = await bare_clients(stack)
    clients = Clients(server.url, CONNECTIONS, peak / 2)
    samples = await watch(watched, clients, bare, cluster, duration, say)
    done = await asyncio.to_thread(beside.end)
    await asyncio.gather(clients.end(), bare.end())
    code = await asyncio.to_thread(server.end)
    stored, old = await ids_in(cluster.url)
    return {
        "minutes": duration / 60,
        "peak_per_second": peak,
        "statuses": dict(clients.statuses + hasty.statuses),
        **done,
        "exit_code": code,
        "too_old": old,
        **counted(bytes(hasty.ids + clients.ids), stored),
        "samples": [each._asdict() for each in samples],
        "log": [line[:400] for line in server.log if _alarming(line)][:20],
    }


def _alarming(line: str) -> bool:
    """Say whether a line of the log is an error other than an absent store."""
    return '"level":"error"' in line and "StoreUnavailable" not in line


def passed(found: dict[str, Any]) -> bool:
    """Say whether all is as it should be."""
    nothing = ("lost", "twice", "too_old", "exit_code", "unexpected", "log")
    only_answers = set(found["statuses"]) == {OK}
    level = all(each["passed"] for each in found["verdicts"])
    return only_answers and level and not any(found[name] for name in nothing)


def show(found: dict[str, Any]) -> None:
    """Print it for a person."""
    console = Console(width=140)
    table = Table("what", "first third", "last third", "may be", "passed", title="after the warm-up")
    for each in (Verdict(**given) for given in found["verdicts"]):
        numbers = (f"{value:,.2f}" for value in (each.early, each.late, each.allowed))
        table.add_row(each.what, *numbers, "yes" if each.passed else "[red]NO")
    console.print(table)
    shown = ("pss_mb", "handles", "threads", "p50_ms", "p99_ms", "bare_p99_ms", "rate", "journal_bytes")
    for name in shown:
        values = [each[name] for each in found["samples"]]
        console.print(f"{name:14}{sparkline(values)}  {min(values):,.1f} to {max(values):,.1f}")
    console.print("bare app beside, p99: {:.1f} and {:.1f} ms".format(*found["bare_p99_ms"]))
    for name in ("answered", "stored", "lost", "twice", "too_old", "exit_code", "statuses", "beside"):
        console.print(f"{name}: {found[name]}")
    for name in ("unexpected", "log"):
        console.print(*found[name][:10], sep="\n")
    console.print("passed" if passed(found) else "[red]FAILED")


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--json", action="store_true", help="write what was found, each sample too, as JSON")
    options = parser.parse_args()
    found = judged(ran(options.minutes))
    if options.json:
        print(json.dumps({**found, "passed": passed(found)}, indent=1))
    else:
        show(found)
    return 0 if passed(found) else 1


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Compare the thirds of a run."""
    parts = thirds([Sample(**each) for each in found["samples"]], WARM_SHARE * 60 * found["minutes"])
    return {
        **found,
        "verdicts": [each._asdict() for each in verdicts(*parts)],
        "bare_p99_ms": [typical(part, "bare_p99_ms") for part in parts],
    }


def ran(minutes: float) -> dict[str, Any]:
    """Run it with a Postgres of its own, which is removed whatever happens."""
    console = Console(stderr=True, width=160)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else all that it has started would go on
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        return asyncio.run(run(stack, cluster, minutes * 60, lambda said: report(console, said)))


def report(console: Console, said: Sample | str) -> None:
    """Show how far it has come."""
    if isinstance(said, Sample):
        said = (
            f"{said.seconds:6.0f} s  {said.rate:7,.0f}/s"
            f"  p99 {said.p99_ms:6.1f} ms (bare app {said.bare_p99_ms:.1f})  {said.pss_mb:6.1f} MB"
            f"  {said.handles} handles  {said.threads} threads  journal {said.journal_bytes:,}"
            f"{'  the store was away' if said.troubled else ''}"
        )
    console.print(said)
