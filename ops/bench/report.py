"""Turns the figures of a run into tables: for the terminal, and as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from ops.bench import chart, figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.bench.figures import Measurement, Tally


class Sheet(NamedTuple):
    """A table.

    Attributes:
        title: what it shows.
        head: the names of its columns.
        rows: its cells, as text; the first of each row says what the row is.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(kw_only=True)
class Run:
    """All that a run of the benchmark found.

    Attributes:
        surroundings: date, machine, versions, and how it was measured.
        servers: what each server is, by name.
        measurements: each turn.
        starts: seconds that each server took to start, the median over the rounds.
        tallies: what was answered and stored.
        extras: `batch`, `startup`, `workers` and `memory`, as far as they were measured.
        failures: what must not happen, and did.
    """

    surroundings: dict[str, Any]
    servers: dict[str, str] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=list)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def medians(self) -> dict[figures.Place, dict[str, float]]:
        """Return the medians in the order of servers and connections."""
        order = list(self.servers)
        found = figures.medians(self.measurements)
        return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))

    def as_dict(self) -> dict[str, Any]:
        """Lay it out for a file."""
        return {
            **self.surroundings,
            "servers": self.servers,
            "medians": [
                {"server": server, "connections": at, **each} for (server, at), each in self.medians().items()
            ],
            "ratios": [each.as_dict() for each in figures.ratios(self.measurements)],
            "start_seconds": self.starts,
            **self.extras,
            "tallies": [{**asdict(each), "agrees": each.agrees} for each in figures.merge(self.tallies)],
            "failures": self.failures,
            "measurements": [asdict(each) for each in self.measurements],
        }


def sheets(run: Run) -> list[Sheet]:
    """Return the tables that are not empty."""
    made = [_ratios(run), _throughput(run), _places(run), _extras(run), _tallies(run)]
    return [sheet for sheet in made if sheet.rows]


def rich(sheet: Sheet) -> Table:
    """Lay a table out for a terminal."""
    table = Table(title=sheet.title, title_justify="left")
    for at, name in enumerate(sheet.head):
        table.add_column(name, justify="left" if at == 0 else "right")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def markdown(run: Run) -> str:
    """Return all of it as Markdown."""
    lines = ["# Model servers compared", "", "![Answers a second by number of connections](serving.svg)", ""]
    lines += [*_conditions(run), ""]
    for sheet in sheets(run):
        lines += [f"## {sheet.title}", "", *_markdown(sheet), ""]
    if run.failures:
        lines += ["## What went wrong", "", *(f"- {each}" for each in run.failures), ""]
    return "\n".join(lines)


def plot(run: Run) -> str:
    """Return throughput by connections as SVG."""
    series: dict[str, list[tuple[int, float]]] = {}
    for (server, connections), each in run.medians().items():
        series.setdefault(server, []).append((connections, each["throughput"]))
    return chart.draw(series)


def _conditions(run: Run) -> Iterator[str]:
    about = run.surroundings
    many = "1 round" if about["rounds"] == 1 else f"{about['rounds']} rounds"
    yield f"Made by `just bench` on {about['date']}: {about['cpu']}, {about['pinning']}."
    yield f"{many}; in each, the servers take turns of {about['seconds']} s at each number of connections."
    yield "All figures are medians over the rounds."
    yield ""
    for name, what in run.servers.items():
        yield f"- **{name}**: {what}"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"Versions: {versions}."


def _markdown(sheet: Sheet) -> Iterator[str]:
    yield f"| {' | '.join(sheet.head)} |"
    yield f"| --- |{' ---: |' * (len(sheet.head) - 1)}"
    for row in sheet.rows:
        yield f"| {' | '.join(row)} |"


def _ratios(run: Run) -> Sheet:
    rows = [
        (
            each.goal.text,
            f"{each.value:,.3g}",
            f"{each.lowest:,.3g} to {each.highest:,.3g}",
            each.goal.wanted,
            "yes" if each.met else "no",
        )
        for each in figures.ratios(run.measurements)
    ]
    return Sheet(
        f"Ratios, at {figures.MANY} connections where nothing else is said",
        ("ratio", "median", "rounds", "goal", "met"),
        rows,
    )


def _throughput(run: Run) -> Sheet:
    middle = run.medians()
    columns = sorted({connections for _, connections in middle})
    rows = []
    for server in dict.fromkeys(name for name, _ in middle):
        cells = [middle.get((server, connections)) for connections in columns]
        rows.append((server, *("" if cell is None else f"{cell['throughput']:,.0f}" for cell in cells)))
    return Sheet("Answers a second, by connections", ("server", *map(str, columns)), rows)


def _places(run: Run) -> Sheet:
    head = (
        "server, connections",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "CPU µs a request",
        "with what follows",
        "drains s",
        "RSS MB",
        "USS MB",
        "server core",
        "load core",
    )
    rows = [
        (
            f"{server}, {connections}",
            f"{each['throughput']:,.0f}",
            f"{each['p50_ms']:.3f}",
            f"{each['p99_ms']:.3f}",
            f"{each['cpu_us_load']:,.1f}",
            f"{each['cpu_us_total']:,.1f}",
            f"{each['drain_seconds']:.2f}",
            f"{each['rss_mb']:,.0f}",
            f"{each['uss_mb']:,.0f}",
            f"{each['server_share']:.0%}",
            f"{each['load_share']:.0%}",
        )
        for (server, connections), each in sorted(run.medians().items(), key=lambda item: item[0][1])
    ]
    return Sheet("Server by server", head, rows)


def _extras(run: Run) -> Sheet:
    rows = [(f"start of {name}, until it is ready", f"{value:.2f} s") for name, value in run.starts.items()]
    if found := run.extras.get("startup"):
        rows.append((f"`kickserve serve`, median of {found['starts']} starts", f"{found['seconds']:.3f} s"))
    if found := run.extras.get("batch"):
        size = f"batch of {found['kicks_a_call']:,}"
        rows.append((f"{size}: kicks/s, over the time of the call", f"{found['kicks_per_second']:,.0f}"))
        rows.append((f"{size}: kicks/s, until they are stored", f"{found['kicks_per_second_stored']:,.0f}"))
        rows.append((f"{size}: kicks a second of CPU time", f"{found['kicks_per_cpu_second']:,.0f}"))
    if found := run.extras.get("workers"):
        for number, rate in found["requests_per_second"].items():
            rows.append((f"workers: {number}, load on the same cores, answers/s", f"{rate:,.0f}"))
        rows.append(("two workers / one", f"{found['ratio']:.2f}"))
    if found := run.extras.get("memory"):
        for stage in ("started", "warm", "afterwards"):
            when = f"after {found['requests']:,} requests" if stage == "afterwards" else stage
            rows.append((f"memory of kickserve, {when}", f"{found[stage]['rss_mb']:,.0f} MB"))
    return Sheet("Starts, batches, workers, memory", ("what", "figure"), rows)


def _tallies(run: Run) -> Sheet:
    rows = [
        (
            each.server,
            f"{each.answered:,}",
            "keeps nothing" if each.stored is None else f"{each.stored:,}",
            "" if each.stored is None else f"{each.stored - each.answered:,} of {each.cut:,}",
            f"{each.errors:,}",
            "yes" if each.passed else "NO",
        )
        for each in figures.merge(run.tallies)
    ]
    head = ("server", "answered", "stored", "more, of as many as were cut off", "errors", "as it should be")
    return Sheet("Answered and stored", head, rows)
