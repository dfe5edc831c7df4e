"""Runs the service for an hour at half load, with all that happens to one in a year: does it age?

`just chaos-long`, or `just chaos-long --minutes 5`. It starts its own Postgres, service and, where there is
one, Chromium. On the way reports of drift are asked for, the model is loaded anew, pages are open, the
history is read and exported, outcomes are told, metrics scraped, old predictions removed, and Postgres is
stopped three times. Ends with 1 where memory grew by more than 5 % after the warm-up (a fifth of the time),
handles, threads or times did not stay level, or an answered prediction is not in the store exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browser import FLAGS, NoBrowser, chromium  # noqa: E402  found through the line above
from clients import ID_BYTES, OK, Clients, counted  # noqa: E402
from playwright.async_api import Browser, Page, async_playwright  # noqa: E402
from postgres import Cluster, binaries  # noqa: E402
from serving import Server  # noqa: E402
from vitals import Sample, Verdict, Watched, sparkline, verdicts  # noqa: E402

from kickserve.contract_samples import record_at  # noqa: E402
from kickserve.settings import Settings  # noqa: E402
from kickserve_storage import create_plugin  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CONNECTIONS = 16
PEAK_SECONDS = 20.0  # with a start of each thing that goes on beside
WARM_SHARE = 0.2  # of the time; all that happens at all has happened once by then
OUTAGES = (0.08, 0.4, 0.75)  # when Postgres is stopped, as shares of the time
OUTAGE_SECONDS = 5.0
KEEP_DAYS = 30
OLD = 30_000  # predictions that are too old from the beginning
PAGES = 3
# Seconds of which times are taken together: what goes on beside has its turn in each minute, and not in each
# ten seconds, of which one would be told by the luck of a page that was just opened, and the next not.
TIMES_OF = 60
DRAINED = 1_000  # bytes of a journal that holds nothing
ALLOWED = {200, 202, 204, 409, 503}  # 409: a report is being made; 503: of reads, while the store is away


class Happenings:
    """What goes on beside the predictions, each on its own clock, and how it was answered."""

    def __init__(self, url: str, clients: Clients, duration: float) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self.clients = clients
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []
        pace = min(1.0, max(duration / 3600, 0.05))  # in a short run, all comes more often
        self._tasks = [
            asyncio.create_task(self._again(max(every * pace, 1.0), what))
            for every, what in (
                (5, self._scrape),
                (2, self._judge),
                (20, self._read),
                (60, self._reload),
                (120, self._quality),
                (180, self._export),
                (300, self._report),
            )
        ]

    async def _again(self, every: float, what: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await what()
            except httpx.HTTPError as error:
                self.unexpected.append(f"{what.__name__}: {error!r}")

    async def _ask(self, name: str, method: str, path: str, **more: Any) -> httpx.Response:
        response = await self._http.request(method, path, **more)
        self.seen[f"{name} {response.status_code}"] += 1
        if response.status_code not in ALLOWED:
            self.unexpected.append(f"{name}: {response.status_code} {response.text[:200]}")
        return response

    async def _scrape(self) -> None:
        await self._ask("metrics", "GET", str(self._http.base_url).removesuffix("/api/v1/") + "/metrics")

    async def _judge(self) -> None:
        ids = bytes(self.clients.ids[-ID_BYTES * 2_000 :])
        if ids:
            at = random.randrange(len(ids) // ID_BYTES) * ID_BYTES  # noqa: S311 - nothing secret hangs on it
            path = f"/predictions/{uuid.UUID(bytes=ids[at : at + ID_BYTES])}/outcome"
            await self._ask("outcome", "PUT", path, json={"success": at % 3 > 0})

    async def _read(self) -> None:
        response = await self._ask("history", "GET", "/predictions?limit=100")
        for _ in range(4):
            if following := response.links.get("next"):
                response = await self._ask("history", "GET", str(response.url.join(following["url"])))

    async def _reload(self) -> None:
        await self._ask("reload", "POST", "/model/reload")

    async def _quality(self) -> None:
        await self._ask("quality", "GET", "/quality")

    async def _report(self) -> None:
        await self._ask("report", "POST", "/drift/reports")

    async def _export(self) -> None:
        """Read the last minute as a stream."""
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        headers = {"Accept": "application/x-ndjson"}
        request = self._http.stream("GET", "/predictions", params={"since": since}, headers=headers)
        async with request as response:
            self.seen[f"export {response.status_code}"] += 1
            try:
                async for chunk in response.aiter_bytes():
                    self.seen["exported bytes"] += len(chunk)
            except httpx.RemoteProtocolError:
                self.seen["export cut off by the outage"] += 1

    async def end(self) -> None:
        """Stop."""
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()


@asynccontextmanager
async def open_pages(root: str, seen: Counter[str]) -> AsyncIterator[None]:
    """Have some pages open, each used now and then, where there is a browser."""
    try:
        place = chromium()
    except NoBrowser as reason:
        seen[f"no pages: {reason}"] += 1
        yield
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=place, args=FLAGS)
        tasks = [asyncio.create_task(use_page(browser, root, at, seen)) for at in range(PAGES)]
        yield
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await browser.close()


async def use_page(browser: Browser, root: str, at: int, seen: Counter[str]) -> None:
    """Open a page, use it for a minute, close it, and so on."""
    while True:
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        try:
            page = await context.new_page()
            await page.goto(f"{root}/ui/")
            await _click_about(page, at, seen)
            await page.goto(f"{root}/ui/history")
            await page.wait_for_timeout(3_000)
            seen["histories shown"] += 1
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a browser is told at the end
            seen[f"page: {type(error).__name__} {str(error)[:80]}"] += 1
        finally:
            await context.close()


async def _click_about(page: Page, at: int, seen: Counter[str]) -> None:
    await page.wait_for_selector(".answer .number")
    pitch = page.locator(".pitch svg")
    for click in range(20):
        box = await pitch.bounding_box()
        assert box is not None
        x, y = 0.25 + (click + at) % 10 / 20, 0.3 + (click + at) % 7 / 14
        await page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        seen["clicks"] += 1
        await page.wait_for_timeout(2_000)


async def old_predictions(url: str) -> None:
    """Store some that retention has to remove: whole months, and a part of one."""
    store = create_plugin(Settings()).create_store(url)
    await store.open()
    end = int((time.time() - (KEEP_DAYS + 3) * 86_400) * 1000)
    for start in range(0, OLD, 5_000):
        await store.add([record_at(end - at * 300_000) for at in range(start, start + 5_000)])
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


async def watch(
    watched: Watched, clients: Clients, cluster: Cluster, duration: float, say: Callable[[Sample], None]
) -> list[Sample]:
    """Look at regular times until the end; stop Postgres when it is due."""
    every = min(10.0, duration / 60)
    samples: list[Sample] = []
    laps: deque[list[float]] = deque(maxlen=max(round(TIMES_OF / every), 1))
    outages = [share * duration for share in OUTAGES]
    began = time.perf_counter()
    last = began
    while (now := time.perf_counter()) - began < duration:
        troubled = bool(outages) and now - began > outages[0]
        if troubled:
            outages.pop(0)
            await asyncio.to_thread(cluster.stop)
            await asyncio.sleep(OUTAGE_SECONDS)
            await asyncio.to_thread(cluster.start)
        await asyncio.sleep(every)
        now, times = time.perf_counter(), clients.lap()
        laps.append(times)
        p50, p99 = await asyncio.to_thread(percentiles, [*laps])
        seen = await asyncio.to_thread(watched.look)
        rate = len(times) / (now - last)
        last = now
        samples.append(Sample(now - began, **seen, rate=rate, p50_ms=p50, p99_ms=p99, troubled=troubled))
        say(samples[-1])
    return samples


def percentiles(laps: list[list[float]]) -> tuple[float, float]:
    """Return the median and the 99th percentile of all times in some laps; 0 where there are none."""
    times = np.concatenate([np.array(lap) for lap in laps])
    return tuple(np.percentile(times, (50, 99)).tolist()) if len(times) else (0.0, 0.0)


async def run(cluster: Cluster, folder: Path, duration: float, say: Callable[[Any], None]) -> dict[str, Any]:
    """Run it all; return what was found."""
    await old_predictions(cluster.url)
    journals = folder / "journal"
    server = Server(
        folder,
        DATABASE_URL=cluster.url,
        KICKSERVE_PLUGINS="storage,ui,drift,metrics",
        KICKSERVE_RETENTION=f"{KEEP_DAYS}d",
        KICKSERVE_JOURNAL_DIR=str(journals),
    )
    try:
        watched = Watched(server.process.pid, journals)
        hasty = Clients(server.url, CONNECTIONS)
        happenings = Happenings(server.url, hasty, duration)
        async with open_pages(server.url.removesuffix("/api/v1"), happenings.seen):
            peak = await measured_peak(hasty, watched)
            say(f"peak {peak:,.0f} predictions a second, kept; now {peak / 2:,.0f}")
            happenings.clients = clients = Clients(server.url, CONNECTIONS, peak / 2)
            samples = await watch(watched, clients, cluster, duration, say)
        await happenings.end()
        await clients.end()
        code = await asyncio.to_thread(server.end)
    finally:
        server.close()
    stored, old = await ids_in(cluster.url)
    return {
        "minutes": duration / 60,
        "peak_per_second": peak,
        "statuses": dict(clients.statuses + hasty.statuses),
        "beside": dict(happenings.seen),
        "unexpected": happenings.unexpected,
        "exit_code": code,
        "too_old": old,
        **counted(bytes(hasty.ids + clients.ids), stored),
        "verdicts": [each._asdict() for each in verdicts(samples, WARM_SHARE * duration)],
        "samples": [each._asdict() for each in samples],
        "log": [line[:400] for line in server.log if _alarming(line)][:20],
    }


def _alarming(line: str) -> bool:
    """Say whether a line of the log tells of an error that is none of the store's absence."""
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
    table = Table("what", "after the warm-up", "at the end", "may be", "passed", title="medians")
    for each in (Verdict(**given) for given in found["verdicts"]):
        numbers = (f"{value:,.2f}" for value in (each.early, each.late, each.allowed))
        table.add_row(each.what, *numbers, "yes" if each.passed else "[red]NO")
    console.print(table)
    for name in ("pss_mb", "handles", "threads", "p50_ms", "p99_ms", "rate", "journal_bytes"):
        values = [each[name] for each in found["samples"]]
        console.print(f"{name:14}{sparkline(values)}  {min(values):,.1f} to {max(values):,.1f}")
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
    console = Console(stderr=True, width=140)
    with ExitStack() as stack:
        cluster = Cluster(binaries())
        stack.callback(cluster.remove)
        cluster.start()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-long-")))
        found = asyncio.run(run(cluster, folder, options.minutes * 60, lambda said: tell(console, said)))
    if options.json:
        print(json.dumps({**found, "passed": passed(found)}, indent=1))
    else:
        show(found)
    return 0 if passed(found) else 1


def tell(console: Console, said: Sample | str) -> None:
    """Show how far it has come."""
    if isinstance(said, Sample):
        said = (
            f"{said.seconds:6.0f} s  {said.rate:7,.0f}/s  p99 {said.p99_ms:6.1f} ms  {said.pss_mb:6.1f} MB"
            f"  {said.handles} handles  {said.threads} threads  journal {said.journal_bytes:,}"
            f"{'  store was away' if said.troubled else ''}"
        )
    console.print(said)


if __name__ == "__main__":
    sys.exit(main())
