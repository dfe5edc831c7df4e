"""Compares model servers in one run, taking turns: `just bench`, or `just bench --quick`.

Server and load generator have a core each. Answers are counted against rows in the store.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Group

from ops.bench import common, contenders
from ops.bench.common import API, OK
from ops.bench.contenders import BY_NAME, Running, Tally, Turns
from ops.bench.peers import environment
from ops.commands import Report, progress, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ops.commands import Row

RESULTS: Final = Path(__file__).with_name("results")
EXTRAS: Final = ("batch", "startup", "workers")
NAMES: Final = (*BY_NAME, *EXTRAS)
OUR_LIBRARIES: Final = ("kickserve", "litestar", "msgspec", "numpy", "uvicorn", "uvloop", "httptools")
THEIR_LIBRARIES: Final = ("fastapi", "pydantic", "sqlalchemy", "litserve", "scikit-learn", "pandas")
MANY: Final = 32  # connections at which servers are compared under load
CROWD: Final = 128  # connections of workers: the system spreads few unevenly
BATCH: Final = 10_000
CALLS: Final = 24
STARTS: Final = 5
ROUNDS: Final = 5
SECONDS: Final = 4
QUICK: Final = (1, MANY)  # connections of --quick
WIDTHS: Final = (1, 8, MANY, CROWD)
MILLION: Final = 1_000_000
TOO_BUSY: Final = 0.85  # share of its core from which a load generator may measure itself
CROWDED: Final = 0.9  # share of its core below which a server under load did not have it for itself

Place = tuple[str, int]
"""A server, and the number of connections that it was measured with."""


class Goal(NamedTuple):
    """A ratio of two places that is aimed at: at least `least`, or at most `most`."""

    text: str
    figure: str
    of: Place
    to: Place
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    def met(self, value: float) -> bool:
        """Say whether a ratio reaches the goal."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


OURS: Final = ("kickserve", MANY)
GOALS: Final = (
    Goal("kickserve / bare, throughput", "throughput", OURS, ("bare", MANY), least=0.5),
    Goal("kickserve / bare, p99", "p99_ms", OURS, ("bare", MANY), most=3),
    Goal("kickserve / bare, p50 of a lone connection", "p50_ms", ("kickserve", 1), ("bare", 1), most=1.6),
    Goal("kickserve / fastapi, throughput", "throughput", OURS, ("fastapi", MANY), least=50),
    Goal("kickserve / litserve, throughput", "throughput", OURS, ("litserve", MANY), least=20),
    Goal(
        "forest, throughput of many / of one at a time",
        "throughput",
        ("forest", MANY),
        ("forest", 1),
        least=10,
    ),
)


def medians(measurements: Iterable[Row]) -> dict[Place, Row]:
    """Return the median of each figure over the rounds, in the order in which places first come up."""
    groups: defaultdict[Place, list[Row]] = defaultdict(list)
    for each in measurements:
        groups[each["server"], each["connections"]].append(each)
    return {
        place: {name: median(each[name] for each in group) for name in [*group[0]][3:]}
        for place, group in groups.items()
    }


def ratios(measurements: Sequence[Row]) -> list[tuple[Goal, list[float]]]:
    """Return the goals whose both sides were measured, and the ratio of each round.

    A slow round slows both sides, so it drops out of the ratio.
    """
    found: defaultdict[Goal, list[float]] = defaultdict(list)
    at = {(each["server"], each["connections"], each["round"]): each for each in measurements}
    for number in sorted({each["round"] for each in measurements}):
        for goal in GOALS:
            above, below = at.get((*goal.of, number)), at.get((*goal.to, number))
            if above and below:
                found[goal].append(above[goal.figure] / below[goal.figure])
    return [*found.items()]


def merge(tallies: Iterable[Tally]) -> list[tuple[Tally, bool]]:
    """Add up the tallies of each server; say whether each of them agreed with its store.

    One's loss must not vanish in the surplus of another.
    """
    sums: dict[str, Tally] = {}
    agree: dict[str, bool] = {}
    for each in tallies:
        total = sums.setdefault(each.server, Tally(each.server))
        total.add(each.answered, cut=each.cut, errors=each.errors)
        agree[each.server] = agree.get(each.server, True) and each.agrees
        if each.stored is not None:
            total.stored = (total.stored or 0) + each.stored
    return [(total, agree[name]) for name, total in sums.items()]


@dataclass(kw_only=True)
class Run:
    """The results of a run.

    Attributes:
        conditions: date, machine, versions, and how it was measured.
        servers: the description of each server, by name.
        measurements: each turn.
        starts: seconds that each server took to start, the median over the rounds.
        tallies: answers and rows.
        extras: `batch`, `startup`, `workers` and `memory`, as far as they were measured.
        failures: events that must not happen.
    """

    conditions: dict[str, Any]
    servers: dict[str, str] = field(default_factory=dict)
    measurements: list[Row] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=list)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def medians(self) -> dict[Place, dict[str, float]]:
        """Return the medians in the order of servers and connections."""
        order = list(self.servers)
        found = medians(self.measurements)
        return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))

    def as_dict(self) -> dict[str, Any]:
        """Lay it out for a file."""
        return {
            **self.conditions,
            "servers": self.servers,
            "medians": [
                {"server": server, "connections": at, **each} for (server, at), each in self.medians().items()
            ],
            "ratios": [
                {
                    "ratio": goal.text,
                    "value": median(values),
                    "lowest": min(values),
                    "highest": max(values),
                    "goal": goal.wanted,
                    "met": goal.met(median(values)),
                }
                for goal, values in ratios(self.measurements)
            ],
            "start_seconds": self.starts,
            **self.extras,
            "tallies": [{**asdict(each), "agrees": agrees} for each, agrees in merge(self.tallies)],
            "failures": self.failures,
            "measurements": self.measurements,
        }

    def notes(self) -> Iterator[str]:
        """Yield the reasons to doubt some figures."""
        busy = [each for each in self.measurements if each["load_share"] > TOO_BUSY]
        loaded = [each for each in self.measurements if each["connections"] >= MANY and each not in busy]
        crowded = [each for each in loaded if each["server_share"] < CROWDED]
        for text, doubtful in (
            ("the load generator was as busy as the server", busy),
            ("others used the server's core meanwhile", crowded),
        ):
            if doubtful:
                places = dict.fromkeys(f"{each['server']} at {each['connections']}" for each in doubtful)
                yield f"{text}: {', '.join(places)}"


def sheets(run: Run) -> list[tuple[str, list[Row]]]:
    """Return the tables that are not empty, by their titles; cells are texts."""
    made = [
        (f"Ratios, at {MANY} connections where nothing else is said", _ratios(run)),
        ("Answers a second, by connections", _throughput(run)),
        ("Server by server", _places(run)),
        ("Starts, batches, workers, memory", _extras(run)),
        ("Answered and stored", _tallies(run)),
    ]
    return [(title, rows) for title, rows in made if rows]


def markdown(run: Run) -> str:
    """Return all tables as Markdown."""
    about = run.conditions
    many = "1 round" if about["rounds"] == 1 else f"{about['rounds']} rounds"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "# Model servers compared",
        "",
        f"Made by `just bench` on {about['date']}: {about['cpu']}, {about['pinning']}.",
        f"{many}; in each, the servers take turns of {about['seconds']} s at each number of connections.",
        "All figures are medians over the rounds.",
        "",
        *(f"- **{name}**: {what}" for name, what in run.servers.items()),
        "",
        f"Versions: {versions}.",
        "",
    ]
    for title, rows in sheets(run):
        lines += [f"## {title}", "", f"| {' | '.join(rows[0])} |", f"| --- |{' ---: |' * (len(rows[0]) - 1)}"]
        lines += [*(f"| {' | '.join(row.values())} |" for row in rows), ""]
    if run.failures:
        lines += ["## Failures", "", *(f"- {each}" for each in run.failures), ""]
    return "\n".join(lines)


def _ratios(run: Run) -> list[Row]:
    return [
        {
            "ratio": goal.text,
            "median": f"{median(values):,.3g}",
            "rounds": f"{min(values):,.3g} to {max(values):,.3g}",
            "goal": goal.wanted,
            "met": "yes" if goal.met(median(values)) else "no",
        }
        for goal, values in ratios(run.measurements)
    ]


def _throughput(run: Run) -> list[Row]:
    middle = run.medians()
    columns = sorted({connections for _, connections in middle})
    return [
        {
            "server": server,
            **{
                str(at): f"{middle[server, at]['throughput']:,.0f}" if (server, at) in middle else ""
                for at in columns
            },
        }
        for server in dict.fromkeys(name for name, _ in middle)
    ]


COLUMNS: Final = {
    "answers/s": ("throughput", ",.0f"),
    "p50 ms": ("p50_ms", ".3f"),
    "p99 ms": ("p99_ms", ".3f"),
    "CPU µs a request": ("cpu_us_load", ",.1f"),
    "with the work after it": ("cpu_us_total", ",.1f"),
    "drains s": ("drain_seconds", ".2f"),
    "RSS MB": ("rss_mb", ",.0f"),
    "USS MB": ("uss_mb", ",.0f"),
    "server core": ("server_share", ".0%"),
    "load core": ("load_share", ".0%"),
}


def _places(run: Run) -> list[Row]:
    return [
        {
            "server, connections": f"{server}, {connections}",
            **{head: format(each[name], form) for head, (name, form) in COLUMNS.items()},
        }
        for (server, connections), each in sorted(run.medians().items(), key=lambda item: item[0][1])
    ]


def _extras(run: Run) -> list[Row]:
    found = {f"start of {name}, until it is ready": f"{value:.2f} s" for name, value in run.starts.items()}
    if each := run.extras.get("startup"):
        found[f"`kickserve serve`, median of {each['starts']} starts"] = f"{each['seconds']:.3f} s"
    if each := run.extras.get("batch"):
        size = f"batch of {each['kicks_a_call']:,}"
        found[f"{size}: kicks/s, over the time of the call"] = f"{each['kicks_per_second']:,.0f}"
        found[f"{size}: kicks/s, until they are stored"] = f"{each['kicks_per_second_stored']:,.0f}"
        found[f"{size}: kicks a second of CPU time"] = f"{each['kicks_per_cpu_second']:,.0f}"
    if each := run.extras.get("workers"):
        for number, rate in each["requests_per_second"].items():
            found[f"workers: {number}, load on the same cores, answers/s"] = f"{rate:,.0f}"
        found["two workers / one"] = f"{each['ratio']:.2f}"
    if each := run.extras.get("memory"):
        for stage in ("started", "warm", "afterwards"):
            when = f"after {each['requests']:,} requests" if stage == "afterwards" else stage
            found[f"memory of kickserve, {when}"] = f"{each[stage]['rss_mb']:,.0f} MB"
    return [{"figure": name, "value": value} for name, value in found.items()]


def _tallies(run: Run) -> list[Row]:
    return [
        {
            "server": each.server,
            "answered": f"{each.answered:,}",
            "stored": "keeps nothing" if each.stored is None else f"{each.stored:,}",
            "more, of as many as were cut off": ""
            if each.stored is None
            else f"{each.stored - each.answered:,} of {each.cut:,}",
            "errors": f"{each.errors:,}",
            "passed": "yes" if agrees and not each.errors else "NO",
        }
        for each, agrees in merge(run.tallies)
    ]


class Extras:
    """Measures more of kickserve: batches, its start, several workers, a million requests."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.tallies: list[Tally] = []

    def _start(self, name: str, *, pin: bool = True, **settings: str) -> Running:
        plain = BY_NAME["kickserve"]
        contender = replace(plain, name=f"kickserve, {name}", settings={**plain.settings, **settings})
        running = Running(contender, self._turns.work, pin=pin)
        self.tallies.append(running.tally)
        return running

    def batch(self) -> dict[str, Any]:
        """Measure batches; each begins when the one before has reached the database."""
        body = json.dumps(common.kicks(BATCH, 11))
        running = self._start("batches")
        times, drains = [], []
        try:
            self._post(running, body)  # warms it up
            used = running.server.cpu()
            for _ in range(CALLS):
                times.append(self._post(running, body))
                drains.append(running.drain())
            used = running.server.cpu() - used
        finally:
            running.end()
        return {
            "kicks_a_call": BATCH,
            "calls": CALLS,
            "kicks_per_second": BATCH / median(times),
            "kicks_per_second_stored": CALLS * BATCH / sum(times + drains),
            "kicks_per_cpu_second": CALLS * BATCH / used,
        }

    def _post(self, running: Running, body: str) -> float:
        """Send a batch; return the seconds until its whole answer was here."""
        began = time.perf_counter()
        status, _ = running.server.ask("POST", f"{API}/predict/batch", body)
        took = time.perf_counter() - began
        if status != OK:
            raise SystemExit(f"a batch was answered with {status}:\n{running.server.log()}")
        running.tally.add(BATCH)
        return took

    def startup(self) -> dict[str, Any]:
        """Measure the seconds from the start of the process until `/health/ready` answers 200."""
        times = []
        for _ in range(STARTS):
            running = self._start("starts")
            times.append(running.server.start_seconds)
            running.end()
        return {"starts": STARTS, "seconds": median(times), "longest": max(times)}

    def workers(self) -> dict[str, Any]:
        """Measure one and two workers in turns. They and the load share all cores."""
        rates: dict[int, list[float]] = {1: [], 2: []}
        cores = common.cores()
        with common.pinned(cores.server, cores.load):
            for _ in range(self._turns.rounds):
                for number, found in rates.items():
                    running = self._start(f"workers: {number}", pin=False, KICKSERVE_WORKERS=str(number))
                    try:
                        found.append(running.load(CROWD, self._turns.seconds).rate)
                        running.drain()
                    finally:
                        running.end()
        return {
            "requests_per_second": {str(number): median(each) for number, each in rates.items()},
            "ratio": median(two / one for one, two in zip(*rates.values(), strict=True)),
        }

    def memory(self) -> dict[str, Any]:
        """Measure the memory at the start, warm, and after a million requests."""
        running = self._start("memory")
        found = {"started": running.server.memory()}
        try:
            running.load(MANY, 1)
            running.drain()
            found["warm"] = running.server.memory()
            while running.tally.answered < MILLION and not running.tally.errors:
                running.load(MANY, 10)
                running.drain()
            found["afterwards"] = running.server.memory()
        finally:
            running.end()
        shown = {stage: {"rss_mb": rss, "uss_mb": uss} for stage, (rss, uss) in found.items()}
        return {"requests": running.tally.answered, **shown}


def conditions(rounds: int, seconds: int) -> Row:
    """Return when, on what machine, and how it was measured; no name of the machine, and no path."""
    theirs = environment.versions()
    wrk = subprocess.run([common.find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pinned = common.cores().server is not None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.machine()}",
        "pinning": "one core for the server, another for the load generator"
        if pinned
        else "nothing is pinned",
        "rounds": rounds,
        "seconds": seconds,
        "versions": {
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in OUR_LIBRARIES},
            **{name: theirs[name] for name in THEIR_LIBRARIES},
            "wrk": " ".join(wrk.split()[1:2]),
        },
    }


def serving(
    rounds: int = ROUNDS,
    seconds: int = SECONDS,
    connections: tuple[int, ...] = WIDTHS,
    only: tuple[str, ...] = NAMES,
    quick: bool = False,
    million: bool = False,
    output: str = "",
) -> Report:
    """Compare model servers in one run, taking turns; needs wrk.

    Fails where answers and rows in the store disagree, or a request failed. A whole run takes about a quarter
    of an hour, and leaves its results in ops/bench/results; one that measures less leaves none, unless
    --output names a folder.

    Args:
        rounds: how often each server has its turns.
        seconds: how long a turn is.
        connections: clients that ask at once.
        only: some of the servers, and of batch, startup and workers.
        quick: one round of 1 s at 1 and 32 connections.
        million: also the memory after a million requests.
        output: a folder for serving.json and serving.md.
    """
    if unknown := {*only} - {*NAMES}:
        raise SystemExit(f"there is no {unknown.pop()}: choose among {', '.join(NAMES)}")
    whole = not quick and (rounds, seconds, (*connections,), (*only,)) == (ROUNDS, SECONDS, WIDTHS, NAMES)
    if quick:
        rounds, seconds, connections = 1, 1, QUICK
    common.find_wrk()
    environment.make()
    servers = [each for each in contenders.ALL if each.name in only]
    # Not in the system's folder for temporary files: that may be memory, and the servers write to disk.
    with tempfile.TemporaryDirectory(prefix="work-", dir=environment.HOME) as work:
        turns = Turns(servers, connections, rounds, seconds, Path(work))
        if servers:
            turns.run()
        extras = Extras(turns)
        measured: dict[str, Row] = {}
        with common.pinned(common.cores().load):
            for name in (*(name for name in EXTRAS if name in only), *["memory"] * million):
                progress.print(name)
                measured[name] = getattr(extras, name)()
    run = Run(
        conditions=conditions(rounds, seconds),
        servers={each.name: each.what for each in servers},
        measurements=turns.measurements,
        starts={name: median(each) for name, each in turns.starts.items()},
        tallies=[*turns.tallies, *extras.tallies],
        extras=measured,
        failures=turns.failures,
    )
    run.failures += failures(run)
    if whole or output:
        folder = Path(output) if output else RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serving.json").write_text(json.dumps(run.as_dict(), indent=1) + "\n")
        (folder / "serving.md").write_text(markdown(run))
    for each in [*run.notes(), *run.failures]:
        progress.print(each, style="red" if each in run.failures else "yellow")
    text = Group(*(part for title, rows in sheets(run) for part in (f"\n{title}", table(rows))))
    return Report(run.as_dict(), text, not run.failures)


def failures(run: Run) -> Iterator[str]:
    """Yield the servers whose requests failed, or whose answers are not those in the store."""
    for each, agrees in merge(run.tallies):
        if each.errors:
            yield f"{each.server}: {each.errors:,} requests failed"
        if not agrees:
            yield f"{each.server}: {each.answered:,} answered, {each.stored:,} stored, {each.cut:,} cut off"
