"""Compares model servers in one run, taking turns: `just bench`, or `just bench --quick`.

Server and load generator have a core each. Answers are counted against rows in the store. A whole run writes
its results, their chart, and the table in the README.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Group

from ops.bench import common, contenders
from ops.bench.chart import chart
from ops.bench.common import API, OK
from ops.bench.contenders import BY_NAME, Running, Tally, Turns
from ops.bench.peers import environment
from ops.commands import Report, progress, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ops.commands import Row

RESULTS: Final = Path(__file__).with_name("results")
README: Final = environment.ROOT / "README.md"
# What a whole run writes into the README.
BLOCK: Final = re.compile(r"(?<=<!-- made by just bench -->\n).*?(?=<!-- end -->)", re.DOTALL)
EXTRAS: Final = ("batch", "workers")
NAMES: Final = (*BY_NAME, *EXTRAS)
OUR_LIBRARIES: Final = ("kickserve", "litestar", "msgspec", "numpy", "uvicorn", "uvloop", "httptools")
THEIR_LIBRARIES: Final = (
    *("granian", "fastapi", "pydantic", "sqlalchemy", "litserve", "bentoml", "mlserver", "scikit-learn"),
    "pandas",
)
MANY: Final = 32  # connections at which servers are compared under load
CROWD: Final = 128  # connections of workers: the system spreads few unevenly
BATCH: Final = 10_000
CALLS: Final = 24
ROUNDS: Final = 5
SECONDS: Final = 2
WIDTHS: Final = (1, MANY)
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
BARE: Final = ("bare", MANY)
GOALS: Final = (
    Goal("kickserve / bare, throughput", "throughput", OURS, BARE, least=1),
    Goal("kickserve / bare, p50 of a lone connection", "p50_ms", ("kickserve", 1), ("bare", 1), most=1.2),
    Goal("kickserve / bare, p99", "p99_ms", OURS, BARE, most=3),
    Goal("fsync / bare, throughput", "throughput", ("fsync", MANY), BARE, least=0.6),
    Goal("lean / bare, throughput", "throughput", ("lean", MANY), BARE, least=1),
    Goal("kickserve / granian, throughput", "throughput", OURS, ("granian", MANY), least=1),
    *(
        Goal(f"kickserve / {peer}, throughput", "throughput", OURS, (peer, MANY), least=20)
        for peer in ("fastapi", "litserve", "bentoml", "mlserver")
    ),
)


def medians(measurements: Iterable[Row]) -> list[Row]:
    """Return the median of each figure over the rounds, in the order in which servers first come up."""
    groups: defaultdict[Place, list[Row]] = defaultdict(list)
    for each in measurements:
        groups[each["server"], each["connections"]].append(each)
    return [
        {
            name: value if name in {"server", "connections"} else median(each[name] for each in group)
            for name, value in group[0].items()
            if name != "round"
        }
        for group in groups.values()
    ]


def ratios(measurements: Sequence[Row]) -> list[Row]:
    """Return the goals whose both sides were measured, with the median ratio of the rounds and their range.

    A slow round slows both sides, so it drops out of the ratio.
    """
    at = {(each["server"], each["connections"], each["round"]): each for each in measurements}
    rounds = {number for _, _, number in at}
    found = []
    for goal in GOALS:
        pairs = [(at.get((*goal.of, number)), at.get((*goal.to, number))) for number in rounds]
        values = [of[goal.figure] / to[goal.figure] for of, to in pairs if of and to]
        if values:
            value = median(values)
            extent = {"lowest": min(values), "highest": max(values)}
            found.append(
                {"ratio": goal.text, "value": value, **extent, "goal": goal.wanted, "met": goal.met(value)}
            )
    return found


def merge(tallies: Iterable[Tally]) -> list[Row]:
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
    return [{**asdict(total), "agrees": agree[name]} for name, total in sums.items()]


def notes(measurements: Sequence[Row]) -> Iterator[str]:
    """Yield the reasons to doubt some figures."""
    busy = [each for each in measurements if each["load_share"] > TOO_BUSY]
    loaded = [each for each in measurements if each["connections"] >= MANY and each not in busy]
    crowded = [each for each in loaded if each["server_share"] < CROWDED]
    for text, doubtful in (
        ("the load generator was as busy as the server", busy),
        ("others used the server's core meanwhile", crowded),
    ):
        if doubtful:
            places = dict.fromkeys(f"{each['server']} at {each['connections']}" for each in doubtful)
            yield f"{text}: {', '.join(places)}"


def failures(tallies: Iterable[Row]) -> Iterator[str]:
    """Yield the servers whose requests failed, or whose answers are not those in the store."""
    for each in tallies:
        if each["errors"]:
            yield f"{each['server']}: {each['errors']:,} requests failed"
        if not each["agrees"]:
            yield "{server}: {answered:,} answered, {stored:,} stored, {cut:,} cut off".format_map(each)


def sheets(found: Row) -> list[tuple[str, list[Row]]]:
    """Return the tables of a run that are not empty, by their titles; cells are texts."""
    made = [
        (f"Ratios, at {MANY} connections where nothing else is said", [*map(_ratio, found["ratios"])]),
        ("Answers a second, by connections", _throughput(found["medians"])),
        ("Server by server", [*map(_place, sorted(found["medians"], key=itemgetter("connections")))]),
        ("Starts, batches, workers, memory", _extras(found)),
        ("Answered and stored", [*map(_tally, found["tallies"])]),
    ]
    return [(title, rows) for title, rows in made if rows]


def markdown(found: Row) -> str:
    """Return all tables of a run as Markdown."""
    many = "1 round" if found["rounds"] == 1 else f"{found['rounds']} rounds"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Model servers compared",
        "",
        f"Made by `just bench` on {found['date']}: {found['cpu']}, {found['pinning']}.",
        f"{many}; in each, the servers take turns of {found['seconds']} s at each number of connections.",
        "All figures are medians over the rounds.",
        "",
        *(f"- **{name}**: {each['what']}" for name, each in found["servers"].items()),
        *(f"- **{name}** was left out: {why}" for name, why in found["left_out"].items()),
        "",
        f"Versions: {versions}.",
        "",
    ]
    for title, rows in sheets(found):
        lines += [f"## {title}", "", f"| {' | '.join(rows[0])} |", f"| --- |{' ---: |' * (len(rows[0]) - 1)}"]
        lines += [*(f"| {' | '.join(row.values())} |" for row in rows), ""]
    if found["failures"]:
        lines += ["## Failures", "", *(f"- {each}" for each in found["failures"]), ""]
    return "\n".join(lines)


def summary(found: Row) -> list[Row]:
    """Return the figures of each server that was measured at 1 and at 32 connections."""
    at = {(each["server"], each["connections"]): each for each in found["medians"]}
    rows = []
    for name, server in found["servers"].items():
        one, many = at.get((name, 1)), at.get((name, MANY))
        if one and many and BARE in at:
            figures = {
                "alone": one["throughput"],
                "throughput": many["throughput"],
                "share": many["throughput"] / at[BARE]["throughput"],
                "p50_ms": one["p50_ms"],
                "p99_ms": many["p99_ms"],
                "rss_mb": many["rss_mb"],
                "start": found["start_seconds"][name],
            }
            rows.append({"server": name, **server, **figures})
    return rows


def block(found: Row) -> str:
    """Return what the README has of a run: the chart, a table, and how they were made."""
    heads = ("server", "answers/s, 1 connection", "answers/s, 32", "of bare", "p50 ms, 1", "p99 ms, 32")
    heads += ("memory MB", "starts in s", "keeps predictions")
    row = (
        "| {server} | {alone:,.0f} | {throughput:,.0f} | {share:.3g} | {p50_ms:.3f} | {p99_ms:.1f}"
        " | {rss_mb:,.0f} | {start:.2f} | {keeps} |"
    )
    made = f"Made by `just bench` on {found['date']} ({found['cpu']}, {found['pinning']}"
    table = [row.format_map(each) for each in sorted(summary(found), key=lambda each: -each["throughput"])]
    return "\n".join(
        [
            f"![Answers a second of each server at {MANY} connections](ops/bench/results/serving.svg)",
            "",
            f"| {' | '.join(heads)} |",
            f"| --- |{' ---: |' * (len(heads) - 2)} --- |",
            *table,
            "",
            f"{made}; medians of {found['rounds']} rounds).\n",
        ]
    )


def write(found: Row, folder: Path) -> None:
    """Write the results of a run: figures, tables, and the chart."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "serving.md").write_text(markdown(found))
    (folder / "serving.svg").write_text(chart(summary(found)))


def _ratio(each: Row) -> Row:
    return {
        "ratio": each["ratio"],
        "median": f"{each['value']:,.3g}",
        "rounds": f"{each['lowest']:,.3g} to {each['highest']:,.3g}",
        "goal": each["goal"],
        "met": "yes" if each["met"] else "no",
    }


def _throughput(medians: list[Row]) -> list[Row]:
    at = {(each["server"], str(each["connections"])): f"{each['throughput']:,.0f}" for each in medians}
    columns = dict.fromkeys(connections for _, connections in at)
    servers = dict.fromkeys(server for server, _ in at)
    return [
        {"server": server, **{column: at.get((server, column), "") for column in columns}}
        for server in servers
    ]


COLUMNS: Final = {
    "answers/s": ("throughput", ",.0f"),
    "p50 ms": ("p50_ms", ".3f"),
    "p99 ms": ("p99_ms", ".3f"),
    "CPU µs a request": ("cpu_us_load", ",.1f"),
    "with what follows": ("cpu_us_total", ",.1f"),
    "drains s": ("drain_seconds", ".2f"),
    "RSS MB": ("rss_mb", ",.0f"),
    "USS MB": ("uss_mb", ",.0f"),
    "server core": ("server_share", ".0%"),
    "load core": ("load_share", ".0%"),
}


def _place(each: Row) -> Row:
    figures = {head: format(each[name], form) for head, (name, form) in COLUMNS.items()}
    return {"server, connections": "{server}, {connections}".format_map(each), **figures}


def _extras(run: Row) -> list[Row]:
    found = {
        f"start of {name}, until it is ready": f"{each:.2f} s" for name, each in run["start_seconds"].items()
    }
    if each := run.get("batch"):
        size = f"batch of {each['kicks_a_call']:,}"
        found[f"{size}: kicks/s, over the time of the call"] = f"{each['kicks_per_second']:,.0f}"
        found[f"{size}: kicks/s, until they are stored"] = f"{each['kicks_per_second_stored']:,.0f}"
        found[f"{size}: kicks a second of CPU time"] = f"{each['kicks_per_cpu_second']:,.0f}"
    if each := run.get("workers"):
        for number, rate in each["requests_per_second"].items():
            found[f"workers: {number}, load on the same cores, answers/s"] = f"{rate:,.0f}"
        found["two workers / one"] = f"{each['ratio']:.2f}"
    if each := run.get("memory"):
        stages = {"started": "started", "warm": "warm", "afterwards": f"after {each['requests']:,} requests"}
        for stage, when in stages.items():
            found[f"memory of kickserve, {when}"] = f"{each[stage]['rss_mb']:,.0f} MB"
    return [{"what": name, "figure": value} for name, value in found.items()]


def _tally(each: Row) -> Row:
    stored, more = "keeps nothing", ""
    if each["stored"] is not None:
        stored, more = f"{each['stored']:,}", f"{each['stored'] - each['answered']:,} of {each['cut']:,}"
    return {
        "server": each["server"],
        "answered": f"{each['answered']:,}",
        "stored": stored,
        "more, of as many as were cut off": more,
        "errors": f"{each['errors']:,}",
        "as it should be": "yes" if each["agrees"] and not each["errors"] else "NO",
    }


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

    def batch(self) -> Row:
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

    def workers(self) -> Row:
        """Measure one and two workers in turns. They and the load share all cores."""
        rates: dict[int, list[float]] = {1: [], 2: []}
        cores = common.cores()
        with common.pinned(cores.server, cores.load):
            for _ in range(self._turns.rounds):
                for number, found in rates.items():
                    running = self._start(f"workers: {number}", pin=False, KICKSERVE_WORKERS=str(number))
                    try:
                        found.append(running.load(CROWD, self._turns.seconds)["throughput"])
                        running.drain()
                    finally:
                        running.end()
        return {
            "requests_per_second": {str(number): median(each) for number, each in rates.items()},
            "ratio": median(two / one for one, two in zip(*rates.values(), strict=True)),
        }

    def memory(self) -> Row:
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


def conditions(rounds: int, seconds: float) -> Row:
    """Return when, on what machine, and how it was measured; no name of the machine, and no path."""
    theirs = environment.versions(environment.MLSERVER) | environment.versions(environment.PEERS)
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
            **{name: theirs[name] for name in THEIR_LIBRARIES if name in theirs},
            **{
                name: version
                for name, version in environment.versions(environment.MLSERVER).items()
                if name == "mlserver"
            },
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

    Fails where answers and rows in the store disagree, or a request failed. A whole run takes nine minutes,
    and writes its results, their chart (ops/bench/results) and the README's table; one that measures less
    leaves none, unless --output names a folder. The first run makes environments for the others, in some
    minutes more. What is not there, nginx or a package, is left out.

    Args:
        rounds: how often each server has its turns.
        seconds: how long a turn is.
        connections: clients that ask at once.
        only: some of the servers, and of batch and workers.
        quick: one round of 1 s at 1 and 32 connections.
        million: also the memory after a million requests.
        output: a folder for serving.json, serving.md and serving.svg.
    """
    if unknown := {*only} - {*NAMES}:
        raise SystemExit(f"there is no {unknown.pop()}: choose among {', '.join(NAMES)}")
    whole = not quick and (rounds, seconds, (*connections,), (*only,)) == (ROUNDS, SECONDS, WIDTHS, NAMES)
    if quick:
        rounds, seconds, connections = 1, 1, WIDTHS
    common.find_wrk()
    wanted = [name for name in (*EXTRAS, "memory") if (million if name == "memory" else name in only)]
    chosen = [(each, each.lacks()) for each in contenders.ALL if each.name in only]
    left_out = {each.name: why for each, why in chosen if why}
    for name, why in left_out.items():
        progress.print(f"{name} is left out: {why}", style="yellow")
    environment.HOME.mkdir(exist_ok=True)
    # Not in the system's folder for temporary files: that may be memory, and the servers write to disk.
    with tempfile.TemporaryDirectory(prefix="work-", dir=environment.HOME) as work:
        servers = [each for each, why in chosen if not why]
        found = measure(Turns(servers, connections, rounds, seconds, Path(work)), wanted)
    found["left_out"] = left_out
    if whole or output:
        write(found, Path(output) if output else RESULTS)
    if whole:
        README.write_text(BLOCK.sub(lambda _: block(found), README.read_text()))
    for style, texts in (("yellow", notes(found["measurements"])), ("red", found["failures"])):
        for each in texts:
            progress.print(each, style=style)
    text = Group(*(part for title, rows in sheets(found) for part in (f"\n{title}", table(rows))))
    return Report(found, text, not found["failures"])


def measure(turns: Turns, wanted: Sequence[str]) -> Row:
    """Let the servers take their turns, and measure the extras that are wanted."""
    if turns.servers:
        turns.run()
    extras = Extras(turns)
    measured: dict[str, Row] = {}
    with common.pinned(common.cores().load):
        for name in wanted:
            progress.print(name)
            measured[name] = getattr(extras, name)()
    tallies = merge([*turns.tallies, *extras.tallies])
    return {
        **conditions(turns.rounds, turns.seconds),
        "servers": {
            each.name: {"what": each.what, "keeps": each.keeps, "ours": each.drains} for each in turns.servers
        },
        "medians": medians(turns.measurements),
        "ratios": ratios(turns.measurements),
        "start_seconds": turns.starts,
        **measured,
        "tallies": tallies,
        "failures": [*turns.failures, *failures(tallies)],
        "measurements": turns.measurements,
    }
