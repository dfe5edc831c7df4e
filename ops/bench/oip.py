"""Measures the Open Inference Protocol beside `/api/v1`: one kick, and many, as JSON and binary.

Run it as  python -m ops.bench oip [--kicks N] [--rounds R] [--json]. One connection asks one thing after the
other; in each round every way has its turn, and a ratio is taken within the round: the median is told.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kickserve.features import COUNT, NAMES, named
from kickserve_data.simulate import simulate
from ops.bench import contenders, processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INFER: Final = "/v2/models/kickserve/infer"
LENGTH: Final = "Inference-Header-Content-Length"
SEED: Final = 11
SINGLES: Final = 300  # calls of one kick a round
SERVERS: Final = {"laned": "1", "routed": "0"}  # with and without the way around the router


@dataclass(frozen=True)
class Way:
    """A way to ask.

    Attributes:
        name: for people.
        path: where.
        body: what.
        headers: more of them.
        server: of `SERVERS`.
    """

    name: str
    path: str
    body: bytes
    headers: dict[str, str]
    server: str = "laned"


def ways(rows: NDArray[np.float64]) -> list[Way]:
    """Ask for the same kicks in every way; the first is what the others are compared with."""
    kicks = [named(row) for row in rows.tolist()]
    many = len(kicks) > 1
    path = f"{contenders.API}/predict{'/batch' if many else ''}"
    plain = msgspec.json.encode(kicks if many else kicks[0])
    asked = [Way(path, path, plain, {})]
    if not many:
        asked.append(Way(f"{path}, by the router", path, plain, {}, "routed"))
    return [
        *asked,
        Way("infer, matrix", INFER, msgspec.json.encode({"inputs": [matrix(rows)]}), {}),
        Way("infer, columns", INFER, msgspec.json.encode({"inputs": columns(rows)}), {}),
        binary("infer, matrix, binary both ways", [matrix(rows)], [rows]),
        binary("infer, columns, binary both ways", columns(rows), [*rows.T]),
    ]


def matrix(rows: NDArray[np.float64]) -> dict[str, Any]:
    """Put kicks into one tensor."""
    return {"name": "kicks", "shape": [len(rows), COUNT], "datatype": "FP64", "data": rows.ravel().tolist()}


def columns(rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Put kicks into a tensor for each feature."""
    pairs = zip(NAMES, rows.T, strict=True)
    return [
        {"name": name, "shape": [len(column)], "datatype": "FP64", "data": column.tolist()}
        for name, column in pairs
    ]


def binary(name: str, inputs: list[dict[str, Any]], arrays: list[NDArray[np.float64]]) -> Way:
    """Put the values behind the JSON, and ask for the answers so."""
    parts = [array.astype("<f8").tobytes() for array in arrays]
    headed = [
        {
            **{key: each[key] for key in ("name", "shape", "datatype")},
            "parameters": {"binary_data_size": len(part)},
        }
        for each, part in zip(inputs, parts, strict=True)
    ]
    head = msgspec.json.encode({"inputs": headed, "parameters": {"binary_data_output": True}})
    return Way(name, INFER, b"".join((head, *parts)), {LENGTH: str(len(head))})


def ask(connection: http.client.HTTPConnection, way: Way) -> bytes:
    """Ask once; return the answer."""
    headers = {"Content-Type": "application/json", "X-API-Key": contenders.KEY, **way.headers}
    connection.request("POST", way.path, way.body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != processes.OK:
        raise SystemExit(f"{way.name} was answered with {response.status}: {answer[:500]!r}")
    return answer


def seconds(connection: http.client.HTTPConnection, way: Way, calls: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        ask(connection, way)
        times.append(time.perf_counter() - began)
    return median(times)


def compare(
    running: dict[str, contenders.Running], rows: NDArray[np.float64], calls: int, rounds: int
) -> list[dict[str, Any]]:
    """Measure every way in turns."""
    asked = ways(rows)
    connections = {
        name: http.client.HTTPConnection(processes.HOST, each.server.port, timeout=processes.ASK_PATIENCE)
        for name, each in running.items()
    }
    for way in asked:
        seconds(connections[way.server], way, calls)  # warms it up
    times: list[list[float]] = []
    for _ in track(range(rounds), f"{len(rows):,} kicks a call", console=Console(stderr=True)):
        times.append([seconds(connections[way.server], way, calls) for way in asked])
        for each in running.values():
            each.drained()
    answers = [len(ask(connections[way.server], way)) for way in asked]
    for each in connections.values():
        each.close()
    return [
        {
            "way": way.name,
            "kicks": len(rows),
            "milliseconds": 1_000 * median(each[at] for each in times),
            "ratio": median(each[at] / each[0] for each in times),
            "request_bytes": len(way.body),
            "answer_bytes": answers[at],
        }
        for at, way in enumerate(asked)
    ]


def measure(kicks: int, rounds: int) -> list[dict[str, Any]]:
    """Start the servers, and compare the ways of asking for one kick, and for many."""
    base = contenders.BY_NAME["kickserve"]
    cores = processes.cores()
    rows = simulate(kicks, SEED).matrix
    with tempfile.TemporaryDirectory() as work, processes.pinned(cores.load):
        running: dict[str, contenders.Running] = {}
        try:
            for name, lane in SERVERS.items():
                settings = {**base.settings, "KICKSERVE_PLUGINS": "storage,oip", "KICKSERVE_FASTLANE": lane}
                folder = Path(work, name)
                folder.mkdir()
                running[name] = contenders.Running(replace(base, settings=settings), folder, cores.server)
            one = compare(running, rows[:1], SINGLES, rounds)
            return one + compare(running, rows, 1, rounds)
        finally:
            for each in running.values():
                each.server.end()


def table(result: list[dict[str, Any]]) -> Table:
    """Lay the results out for a person."""
    made = Table(title="The Open Inference Protocol beside /api/v1, one call at a time")
    for name in ("kicks a call", "way", "ms", "ratio", "request", "answer"):
        made.add_column(name, justify="left" if name == "way" else "right")
    for each in result:
        sizes = (f"{each[name] / 1e3:,.1f} kB" for name in ("request_bytes", "answer_bytes"))
        made.add_row(
            f"{each['kicks']:,}", each["way"], f"{each['milliseconds']:.3f}", f"{each['ratio']:.2f}", *sizes
        )
    return made


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measures the Open Inference Protocol beside /api/v1.")
    parser.add_argument("--kicks", type=int, default=10_000, help="kicks of a large call")
    parser.add_argument("--rounds", type=int, default=15, help="how often each way has its turn")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    asked = parser.parse_args()
    result = measure(asked.kicks, asked.rounds)
    if asked.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        Console().print(table(result))
