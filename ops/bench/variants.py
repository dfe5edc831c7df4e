"""Measures the cost of plugins: kickserve with some settings beside itself with others, in turns.

`just bench watching` compares counting, `/metrics` and plugins that are off; `just bench drift-live` the live
figures of drift, and the memory over ten reports in a row. A ratio is taken within a round, and the median
over the rounds is shown.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ops.bench import common
from ops.bench.common import API, KEY, SERVE, Server
from ops.bench.contenders import Contender, Measurement, Running, Turns, variant

if TYPE_CHECKING:
    from ops.bench.common import Row

CONNECTIONS: Final = 32
ACCEPTED: Final = 202
KICKS: Final = 2_000
REPORTS: Final = f"{API}/drift/reports"
SCRAPED: Final = "metrics, scraped"


class Scraped(Running):
    """A contender whose metrics are read once a second while it is loaded, if its name asks for that."""

    def load(self, connections: int, seconds: float) -> Any:
        """Load it, and read its metrics beside."""
        if self.contender.name != SCRAPED:
            return super().load(connections, seconds)
        ended = threading.Event()
        scraper = threading.Thread(target=self._scrape, args=(ended,))
        scraper.start()
        try:
            return super().load(connections, seconds)
        finally:
            ended.set()
            scraper.join()

    def _scrape(self, ended: threading.Event) -> None:
        while not ended.wait(1.0):
            self.server.ask("GET", "/metrics")


def costs(
    measurements: list[Measurement], pairs: list[tuple[str, str, str, float | None]]
) -> list[dict[str, Any]]:
    """Return the cost of one variant over another: in throughput, and in CPU time.

    Args:
        measurements: of all turns.
        pairs: a title, the dear variant, the cheap one, and the share that the dear one may cost.
    """
    at = {(each.server, each.round): each for each in measurements}
    rounds = sorted({each.round for each in measurements})
    return [
        {
            "ratio": title,
            "throughput_lost": median(
                1 - at[dear, each].throughput / at[cheap, each].throughput for each in rounds
            ),
            "cpu_more": median(
                at[dear, each].cpu_us_load / at[cheap, each].cpu_us_load - 1 for each in rounds
            ),
            "may_cost": "" if most is None else most,
        }
        for title, dear, cheap, most in pairs
    ]


def compared(servers: list[Contender], rounds: int, seconds: float, folder: Path) -> list[Measurement]:
    """Let servers take turns under load."""
    cores = common.cores()
    turns = Turns(
        servers,
        [CONNECTIONS],
        rounds,
        seconds,
        cores,
        folder,
        common.write_bodies(folder),
        running=Scraped,
    )
    with common.pinned(cores.load):
        turns.run()
    if failed := [each for each in turns.tallies if each.errors or not each.agrees] or turns.failures:
        raise SystemExit(f"not all requests were answered and stored: {failed}")
    return turns.measurements


def watching() -> None:
    """Measure the cost of being watched."""
    parser = common.options(__doc__, rounds=(9, "turns of each variant"), seconds=(3, "of a turn"))
    asked = parser.parse_args()
    servers = [
        variant("plain", KICKSERVE_PLUGINS="storage"),
        variant("again", KICKSERVE_PLUGINS="storage"),  # how far the ratio of equals is from 1
        variant("off", KICKSERVE_PLUGINS="storage,profiling,otel"),
        variant(SCRAPED, KICKSERVE_PLUGINS="storage,metrics"),
    ]
    pairs = [
        ("the same twice (noise)", "again", "plain", None),
        ("plugins installed, but off", "off", "plain", 0.01),
        ("metrics scraped each second / none", SCRAPED, "plain", 0.05),
    ]
    with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as work:
        found = costs(compared(servers, asked.rounds, asked.seconds, Path(work)), pairs)
    common.show(f"{CONNECTIONS} connections", found, as_json=asked.json)


def drift_live() -> None:
    """Measure the cost of the live figures of drift."""
    parser = common.options(
        __doc__,
        rounds=(6, "turns of each variant"),
        seconds=(5, "of a turn"),
        reports=(10, "reports in a row"),
    )
    asked = parser.parse_args()
    servers = [
        variant("without", KICKSERVE_PLUGINS="storage"),
        variant("with", KICKSERVE_PLUGINS="storage,drift"),
    ]
    with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as work:
        folder = Path(work)
        measurements = compared(servers, asked.rounds, asked.seconds, folder)
        found = [
            *costs(measurements, [("live figures of drift / none", "with", "without", None)]),
        ]
        memory = reports(folder, asked.reports)
    common.show(f"{CONNECTIONS} connections", found, as_json=asked.json)
    common.show("report after report", memory, as_json=asked.json)


def reports(folder: Path, number: int) -> list[Row]:
    """Ask a service for report after report; return the seconds and the service's memory after each."""
    settings = {"API_KEY": KEY, "KICKSERVE_PLUGINS": "storage,drift"}
    place = folder / "reports"
    place.mkdir()
    server = Server(SERVE, place, settings)
    try:
        server.ask("POST", f"{API}/predict/batch", json.dumps(common.kicks(folder, KICKS, 2)))
        rows = []
        for at in range(1, number + 1):
            began = time.perf_counter()
            status, answer = server.ask("POST", REPORTS)
            if status != ACCEPTED:
                raise SystemExit(f"a report was answered with {status}: {answer!r}")
            while json.loads(server.ask("GET", REPORTS)[1])["newest_run"]["status"] == "running":
                time.sleep(0.1)
            took = time.perf_counter() - began
            rows.append({"report": at, "seconds": took, "memory_mb": server.memory()[0]})
        return rows
    finally:
        server.end()
