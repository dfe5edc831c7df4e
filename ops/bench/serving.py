"""Compares model servers in one run, taking turns: `just bench`, or `python -m ops.bench serving --quick`.

Each round starts every server anew; at each number of connections they take their turn one after another,
while the others are suspended. Server and load generator have a core each. What was answered is counted
against what is stored: ends with 1 where they disagree, or a request failed. A whole run takes about a
quarter of an hour, and leaves its results in ops/bench/results; one that measures less leaves none, unless
--output names a folder.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import Progress

from ops.bench import contenders, extras, processes, report, wrk
from ops.bench.contenders import Contender, Running
from ops.bench.figures import CROWDED, MANY, TOO_BUSY, Measurement, Tally
from ops.bench.peers import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESULTS: Final = Path(__file__).with_name("results")
WARM_CONNECTIONS: Final = 8
NAMES: Final = (*contenders.BY_NAME, "batch", "startup", "workers")
OUR_LIBRARIES: Final = ("kickserve", "litestar", "msgspec", "numpy", "uvicorn", "uvloop", "httptools")
THEIR_LIBRARIES: Final = ("fastapi", "pydantic", "sqlalchemy", "litserve", "scikit-learn", "pandas")


@dataclass
class Turns:
    """Who is measured, how, and what came of it.

    Attributes:
        options: what the command line asked for.
        servers: who is compared.
        cores: where servers and load run.
        work: a folder for files, gone at the end.
        bodies: a file with the body of a kick a line.
    """

    options: argparse.Namespace
    servers: Sequence[Contender]
    cores: processes.Cores
    work: Path
    bodies: Path
    measurements: list[Measurement] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    starts: dict[str, list[float]] = field(default_factory=dict)

    def plan(self, server: Contender) -> list[int]:
        """Return the numbers of connections with which a server is measured."""
        own = server.connections
        return [each for each in self.options.connections if not own or each in own]

    @property
    def count(self) -> int:
        """How many turns there are."""
        return self.options.rounds * sum(len(self.plan(server)) for server in self.servers)

    def run(self, progress: Progress) -> None:
        """Take all turns."""
        task = progress.add_task("starting", total=self.count)
        for number in range(1, self.options.rounds + 1):
            for text in self._round(number):
                progress.update(task, description=text)
                if not progress.console.is_terminal:
                    progress.console.print(text)
                if "connections" in text:
                    progress.advance(task)

    def _round(self, number: int) -> Iterator[str]:
        # Nobody is always the first.
        first = (number - 1) % len(self.servers)
        servers = [server for server in (*self.servers[first:], *self.servers[:first]) if self.plan(server)]
        with ExitStack() as stack:
            running = []
            for server in servers:
                yield f"round {number}: {server.name} starts"
                running.append(self._start(server, stack))
            for connections in self.options.connections:
                for each, tally in running:
                    if connections in self.plan(each.contender):
                        yield f"round {number}, {connections} connections: {each.contender.name}"
                        self.measurements.append(self._turn(each, tally, connections, number))
            for each, tally in running:
                self._end(each, tally)

    def _start(self, server: Contender, stack: ExitStack) -> tuple[Running, Tally]:
        folder = Path(stack.enter_context(extras.folder(self.work)))
        running = Running(server, folder, self.cores.server)
        stack.callback(running.server.end)
        self.starts.setdefault(server.name, []).append(running.server.start_seconds)
        tally = Tally(server.name)
        running.check(self.bodies)
        tally.add(1)
        load, _ = wrk.run(running.url, WARM_CONNECTIONS, 1, self.bodies, contenders.KEY)
        tally.add(load.requests, cut=WARM_CONNECTIONS, errors=load.errors)
        running.drained()
        running.server.suspend()
        return running, tally

    def _turn(self, running: Running, tally: Tally, connections: int, number: int) -> Measurement:
        server = running.server
        server.resume()
        before, began = server.cpu(), time.perf_counter()
        load, load_share = wrk.run(
            running.url, connections, self.options.seconds, self.bodies, contenders.KEY
        )
        loaded, ended = server.cpu(), time.perf_counter()
        drain = running.drained()
        rested = server.cpu()
        rss, uss = server.memory()
        server.suspend()
        tally.add(load.requests, cut=connections, errors=load.errors)
        return Measurement(
            server=running.contender.name,
            connections=connections,
            round=number,
            requests=load.requests,
            errors=load.errors,
            throughput=load.requests / load.seconds,
            p50_ms=load.p50_ms,
            p90_ms=load.p90_ms,
            p99_ms=load.p99_ms,
            max_ms=load.max_ms,
            cpu_us_load=(loaded - before) / max(load.requests, 1) * 1e6,
            # A server also finishes what was under way when the load was cut off: one request a connection.
            cpu_us_total=(rested - before) / (load.requests + connections) * 1e6,
            drain_seconds=drain,
            rss_mb=rss,
            uss_mb=uss,
            server_share=(loaded - before) / (ended - began),
            load_share=load_share,
        )

    def _end(self, running: Running, tally: Tally) -> None:
        code = running.server.end()
        if running.contender.drains and code:
            # Its log names folders of this machine: it is shown, and not kept among the results.
            print(running.server.log(), file=sys.stderr)
            self.failures.append(f"{tally.server} ended with the exit code {code}")
        # Counted when nothing can come any more.
        tally.stored = running.stored()
        self.tallies.append(tally)


def surroundings(options: argparse.Namespace, cores: processes.Cores) -> dict[str, Any]:
    """Say when, on what, and how it was measured; no name of the machine, and no path."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "pinning": cores.note,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": _versions(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named_so = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named_so[0] if named_so else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    theirs = environment.versions()
    said = subprocess.run([wrk.find(), "-v"], capture_output=True, text=True, check=False).stdout
    return {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in OUR_LIBRARIES},
        **{name: theirs[name] for name in THEIR_LIBRARIES},
        "wrk": " ".join(said.split()[1:2]),
    }


def failures(run: report.Run) -> list[str]:
    """Say of each server what must not be."""
    found = []
    for each in run.tallies:
        if each.errors:
            found.append(f"{each.server}: {each.errors:,} requests failed")
        if not each.agrees:
            found.append(
                f"{each.server}: {each.answered:,} answered, {each.stored:,} stored, {each.cut:,} cut off"
            )
    return found


def notes(run: report.Run) -> list[str]:
    """Say what makes figures doubtful."""
    found = []
    places = {
        "the load generator was as busy as the server": lambda each: each.load_share > TOO_BUSY,
        "others used the server's core meanwhile": lambda each: (
            each.connections >= MANY and each.server_share < CROWDED and each.load_share <= TOO_BUSY
        ),
    }
    for text, doubtful in places.items():
        where = [f"{each.server} at {each.connections}" for each in run.measurements if doubtful(each)]
        if where:
            found.append(f"{text}: {', '.join(dict.fromkeys(where))}")
    return found


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, help="how often each server has its turns (5)")
    parser.add_argument("--seconds", type=int, help="how long a turn is (4)")
    parser.add_argument("--connections", type=int, nargs="+", help="clients that ask at once (1 8 32 128)")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of {', '.join(NAMES)}"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1 s at 1 and 32 connections")
    parser.add_argument("--million", action="store_true", help="also the memory after a million requests")
    parser.add_argument("--output", type=Path, help="a folder for serving.json, .md and .svg")
    parser.add_argument("--json", action="store_true", help="print JSON and no tables")
    options = parser.parse_args()
    whole = not (options.quick or options.only or options.connections or options.rounds or options.seconds)
    options.output = options.output or (RESULTS if whole else None)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.connections = options.connections or ([1, 32] if options.quick else [1, 8, 32, 128])
    options.only = options.only or NAMES
    return options


def measure(options: argparse.Namespace, work: Path, console: Console) -> report.Run:
    """Measure what the command line asks for."""
    cores = processes.cores()
    bodies = work / "kicks.ndjson"
    wrk.write_bodies(bodies)
    servers = [each for each in contenders.ALL if each.name in options.only]
    run = report.Run(
        surroundings=surroundings(options, cores), servers={each.name: each.what for each in servers}
    )
    processes.pin(cores.load)
    turns = Turns(options, servers, cores, work, bodies)
    if servers:
        with Progress(console=console, refresh_per_second=2) as progress:
            turns.run(progress)
    run.measurements, run.tallies = turns.measurements, turns.tallies
    run.starts = {name: median(each) for name, each in turns.starts.items()}
    measure_extras(run, turns, console)
    run.failures = [*turns.failures, *failures(run)]
    return run


def measure_extras(run: report.Run, turns: Turns, console: Console) -> None:
    """Measure the rest, as far as it is asked for."""
    options, work, core = turns.options, turns.work, turns.cores.server
    if "startup" in options.only:
        console.print("starts of kickserve")
        run.extras["startup"] = extras.startup(work, core)
    if "batch" in options.only:
        console.print("batches")
        run.extras["batch"], tally = extras.batch(work, core)
        run.tallies.append(tally)
    if "workers" in options.only:
        console.print("one worker and two")
        run.extras["workers"], tallies = extras.workers(work, turns.bodies, options.rounds, options.seconds)
        run.tallies += tallies
    if options.million:
        console.print("a million requests")
        run.extras["memory"], tally = extras.million(work, core, turns.bodies)
        run.tallies.append(tally)


def write(run: report.Run, folder: Path) -> None:
    """Leave the results in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.json").write_text(json.dumps(run.as_dict(), indent=1) + "\n")
    (folder / "serving.md").write_text(report.markdown(run))
    if run.measurements:
        (folder / "serving.svg").write_text(report.plot(run))


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = parse()
    wrk.find()
    environment.make()
    console = Console(stderr=True)
    # Not in the system's folder for temporary files: that may be memory, and the servers write to disk.
    with tempfile.TemporaryDirectory(prefix="work-", dir=environment.HOME) as work:
        run = measure(options, Path(work), console)
    if options.output:
        write(run, options.output)
    if options.json:
        json.dump(run.as_dict(), sys.stdout, indent=1)
    else:
        out = Console(width=None if sys.stdout.isatty() else 140)
        for sheet in report.sheets(run):
            out.print(report.rich(sheet))
    for each in [*notes(run), *run.failures]:
        console.print(each, style="red" if each in run.failures else "yellow")
    return 1 if run.failures else 0
