"""Measures the cost of plugins: kickserve with some settings beside itself with others, in turns.

A ratio is taken within a round, and the median over the rounds is shown.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from ops.bench import common
from ops.bench.common import API, KEY, OK, SERVE, Server
from ops.bench.contenders import Contender, Running, Turns, variant

if TYPE_CHECKING:
    from ops.commands import Row

CONNECTIONS: Final = 32
ACCEPTED: Final = 202
KICKS: Final = 2_000
REPORTS: Final = f"{API}/drift/reports"
SCRAPED: Final = "metrics, scraped"


class Scraped(Running):
    """A contender whose metrics are read once a second while it is loaded, if its name asks for that."""

    def load(self, connections: int, seconds: float) -> Row:
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


class Heard(Running):
    """A contender that has heard outcomes of kickers, and whose kicks name none."""

    named = False

    def check(self) -> None:
        """Tell it outcomes, too."""
        kicks = common.named_kicks(common.kicks(KICKS, 2))
        if self.named:
            self._bodies = common.write_bodies(self._bodies.parent, kicks)
        super().check()
        answers = json.loads(self.server.ask("POST", f"{API}/predict/batch", json.dumps(kicks))[1])
        self.tally.add(len(answers))
        outcomes = [{"id": each["id"], "success": at % 4 > 0} for at, each in enumerate(answers)]
        status, answer = self.server.ask("PUT", f"{API}/predictions/outcomes", json.dumps(outcomes))
        if status != OK:
            raise SystemExit(f"outcomes were answered with {status}: {answer!r}")


class HeardNamed(Heard):
    """The same, and its kicks name the kickers."""

    named = True


def costs(measurements: list[Row], pairs: list[tuple[str, str, str, float | None]]) -> list[Row]:
    """Return the cost of one variant over another: in throughput, and in CPU time.

    Args:
        measurements: of all turns.
        pairs: a title, the dear variant, the cheap one, and the share that the dear one may cost.
    """
    at = {(each["server"], each["round"]): each for each in measurements}
    rounds = sorted({each["round"] for each in measurements})

    def ratio(figure: str, dear: str, cheap: str) -> float:
        return median(at[dear, each][figure] / at[cheap, each][figure] for each in rounds)

    return [
        {
            "ratio": title,
            "throughput_lost": 1 - ratio("throughput", dear, cheap),
            "cpu_more": ratio("cpu_us_load", dear, cheap) - 1,
            "may_cost": "" if most is None else most,
        }
        for title, dear, cheap, most in pairs
    ]


def compared(
    servers: list[Contender], rounds: int, seconds: float, folder: Path, running: type[Running] = Scraped
) -> list[Row]:
    """Let servers take turns under load."""
    turns = Turns(servers, [CONNECTIONS], rounds, seconds, folder, running=running)
    turns.run()
    if failed := [each for each in turns.tallies if each.errors or not each.agrees] or turns.failures:
        raise SystemExit(f"not all requests were answered and stored: {failed}")
    return turns.measurements


def watching(rounds: int = 9, seconds: int = 3) -> dict[str, list[Row]]:
    """Measure the cost of counting, /metrics and plugins that are off; needs wrk.

    Args:
        rounds: turns of each variant.
        seconds: of a turn.
    """
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
        found = costs(compared(servers, rounds, seconds, Path(work)), pairs)
    return {f"{CONNECTIONS} connections": found}


def learned(rounds: int = 9, seconds: int = 3) -> dict[str, list[Row]]:
    """Measure the cost of learning, for the same kicks with and without the names of kickers; needs wrk.

    Args:
        rounds: turns of each variant.
        seconds: of a turn.
    """
    learns = {"off": "off", "again": "off", "kickers": "kickers", "level": "level,kickers"}
    servers = [
        variant(name, KICKSERVE_PLUGINS="storage", KICKSERVE_LEARN=value) for name, value in learns.items()
    ]
    pairs = [
        ("the same twice (noise)", "again", "off", None),
        ("kickers / off", "kickers", "off", 0.02),
        ("level,kickers / off", "level", "off", 0.02),
    ]
    found = {}
    for title, running in (("kicks without a name", Heard), ("kicks of known kickers", HeardNamed)):
        with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as work:
            found[title] = costs(compared(servers, rounds, seconds, Path(work), running), pairs)
    return found


def drift_live(rounds: int = 6, seconds: int = 5, reports: int = 10) -> dict[str, list[Row]]:
    """Measure the cost of the live figures of drift, and the memory over reports in a row; needs wrk.

    Args:
        rounds: turns of each variant.
        seconds: of a turn.
        reports: in a row.
    """
    servers = [
        variant("without", KICKSERVE_PLUGINS="storage", KICKSERVE_DRIFT_WINDOW="0"),
        variant("with", KICKSERVE_PLUGINS="storage"),
    ]
    with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as work:
        measurements = compared(servers, rounds, seconds, Path(work))
        found = costs(measurements, [("live figures of drift / none", "with", "without", None)])
        memory = report_memory(Path(work), reports)
    return {f"{CONNECTIONS} connections": found, "report after report": memory}


def report_memory(folder: Path, number: int) -> list[Row]:
    """Ask a service for report after report; return the seconds and the service's memory after each."""
    settings = {"API_KEY": KEY, "KICKSERVE_PLUGINS": "storage"}
    place = folder / "reports"
    place.mkdir()
    server = Server(SERVE, place, settings)
    try:
        server.ask("POST", f"{API}/predict/batch", json.dumps(common.kicks(KICKS, 2)))
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
