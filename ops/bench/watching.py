"""Measures what it costs to be watched: counting, `/metrics`, plugins that are off. `just bench watching`.

All servers run from the beginning, and take their turn one after another in each round, while the others are
suspended. A ratio is taken within a round, and the median over the rounds is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from ops.bench import contenders, extras, processes, wrk
from ops.bench.contenders import BY_NAME, Running

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS: Final = 32
_BASE: Final = BY_NAME["kickserve"]
_SERVED: Final = (sys.executable, str(Path(__file__).parent / "peers" / "unmetered.py"), "{port}")


def _with(name: str, plugins: str, **more: Any) -> contenders.Contender:
    settings = {**_BASE.settings, "KICKSERVE_PLUGINS": plugins}
    return replace(_BASE, name=name, settings=settings, **more)


SERVERS: Final = (
    _with("plain", "storage"),
    _with("again", "storage"),  # the same once more: how far the ratio of equals is from 1
    _with("profiling off", "storage,profiling,otel"),
    _with("metrics, scraped", "storage,metrics"),
    _with("uncounted", "storage", command=_SERVED),
)
# Name of the ratio, the server that bears the cost, the one that does not, and what it may cost.
RATIOS: Final = (
    ("the same twice (noise)", "again", "plain", None),
    ("plugins installed, but off", "profiling off", "plain", 0.01),
    ("metrics scraped each second / none", "metrics, scraped", "plain", 0.05),
    ("metrics scraped / nothing counted at all", "metrics, scraped", "uncounted", 0.05),
)


def scraping(running: Running, ended: threading.Event) -> None:
    """Ask for the metrics once a second."""
    while not ended.wait(1.0):
        running.server.ask("GET", "/metrics", headers={"X-API-Key": contenders.KEY})


def turn(running: Running, bodies: Path, seconds: int) -> tuple[float, float]:
    """Return answers a second, and the server's CPU time in µs an answer."""
    running.server.resume()
    ended = threading.Event()
    scraper = threading.Thread(target=scraping, args=(running, ended))
    if "metrics" in running.contender.name:
        scraper.start()
    before = running.server.cpu()
    load, _ = wrk.run(running.url, CONNECTIONS, seconds, bodies, contenders.KEY)
    used = running.server.cpu() - before
    ended.set()
    if scraper.ident is not None:
        scraper.join()
    running.drained()
    running.server.suspend()
    if load.errors:
        raise SystemExit(f"{running.contender.name}: {load.errors} requests failed")
    return load.requests / load.seconds, used / load.requests * 1e6


def measure(rounds: int, seconds: int, work: Path, console: Console) -> list[dict[str, tuple[float, float]]]:
    """Take all turns; return the figures of each round by server."""
    cores = processes.cores()
    bodies = work / "kicks.ndjson"
    wrk.write_bodies(bodies)
    processes.pin(cores.load)
    with ExitStack() as stack:
        running = []
        for server in SERVERS:
            each = Running(server, Path(stack.enter_context(extras.folder(work))), cores.server)
            stack.callback(each.server.end)
            each.check(bodies)
            turn(each, bodies, 1)  # warm
            running.append(each)
        found = []
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            first = number % len(running)
            order = [*running[first:], *running[:first]]
            found.append({each.contender.name: turn(each, bodies, seconds) for each in order})
        for each in running:
            each.server.resume()
    return found


def costs(rounds: list[dict[str, tuple[float, float]]]) -> Iterator[dict[str, Any]]:
    """Yield for each ratio what it costs: in throughput, and in CPU time, which others can't take away."""
    for name, dear, cheap, most in RATIOS:
        throughput = median(1 - each[dear][0] / each[cheap][0] for each in rounds)
        cpu = median(each[dear][1] / each[cheap][1] - 1 for each in rounds)
        yield {"ratio": name, "throughput_lost": throughput, "cpu_more": cpu, "may_cost": most}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    options = parser.parse_args()
    wrk.find()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as work:
        rounds = measure(options.rounds, options.seconds, Path(work), console)
    found = [*costs(rounds)]
    if options.json:
        print(json.dumps({"costs": found, "rounds": rounds}, indent=1))
        return 0
    table = Table("what", "throughput lost", "CPU time more", "may cost", title=f"{CONNECTIONS} connections")
    for each in found:
        most = "" if each["may_cost"] is None else f"{each['may_cost']:.0%}"
        table.add_row(each["ratio"], f"{each['throughput_lost']:+.1%}", f"{each['cpu_more']:+.1%}", most)
    Console(width=110).print(table)
    return 0
