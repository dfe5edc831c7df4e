"""Measures the Open Inference Protocol beside `/api/v1`: one kick, and many, as JSON and binary."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ops.bench import common
from ops.bench.common import API, HOST, KEY, OK, PATIENCE, SERVE, Server
from ops.commands import progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ops.commands import Row

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


def ways(kicks: list[dict[str, float]]) -> list[Way]:
    """Ask for the same kicks in every way; the others are compared with the first."""
    rows = np.array([[*kick.values()] for kick in kicks], dtype=float)
    many = len(kicks) > 1
    path = f"{API}/predict{'/batch' if many else ''}"
    plain = encoded(kicks if many else kicks[0])
    asked = [Way(path, path, plain, {})]
    if not many:
        asked.append(Way(f"{path}, by the router", path, plain, {}, "routed"))
    return [
        *asked,
        Way("infer, matrix", INFER, encoded({"inputs": [matrix(rows)]}), {}),
        Way("infer, columns", INFER, encoded({"inputs": columns([*kicks[0]], rows)}), {}),
        binary("infer, matrix, binary both ways", [matrix(rows)], [rows]),
        binary("infer, columns, binary both ways", columns([*kicks[0]], rows), [*rows.T]),
    ]


def encoded(value: Any) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def matrix(rows: NDArray[np.float64]) -> dict[str, Any]:
    """Put kicks into one tensor."""
    return {"name": "kicks", "shape": [*rows.shape], "datatype": "FP64", "data": rows.ravel().tolist()}


def columns(names: list[str], rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Put kicks into a tensor for each feature."""
    pairs = zip(names, rows.T, strict=True)
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
    head = encoded({"inputs": headed, "parameters": {"binary_data_output": True}})
    return Way(name, INFER, b"".join((head, *parts)), {LENGTH: str(len(head))})


def ask(connection: http.client.HTTPConnection, way: Way) -> bytes:
    """Ask once; return the answer."""
    headers = {"Content-Type": "application/json", "X-API-Key": KEY, **way.headers}
    connection.request("POST", way.path, way.body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != OK:
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


def compare(running: dict[str, Server], kicks: list[dict[str, float]], calls: int, rounds: int) -> list[Row]:
    """Measure every way in turns."""
    asked = ways(kicks)
    connections = {
        name: http.client.HTTPConnection(HOST, each.port, timeout=PATIENCE) for name, each in running.items()
    }
    for way in asked:
        seconds(connections[way.server], way, calls)  # warms it up
    times: list[list[float]] = []
    for number in range(1, rounds + 1):
        progress.print(f"{len(kicks):,} kicks a call, round {number} of {rounds}")
        times.append([seconds(connections[way.server], way, calls) for way in asked])
        for each in running.values():
            each.drain()
    answers = [len(ask(connections[way.server], way)) for way in asked]
    for each in connections.values():
        each.close()
    return [
        {
            "way": way.name,
            "kicks_a_call": len(kicks),
            "ms": 1_000 * median(each[at] for each in times),
            "ratio": median(each[at] / each[0] for each in times),
            "request_bytes": len(way.body),
            "answer_bytes": answers[at],
        }
        for at, way in enumerate(asked)
    ]


def oip(kicks: int = 10_000, rounds: int = 15) -> dict[str, list[Row]]:
    """Measure the Open Inference Protocol beside /predict and /predict/batch, as JSON and binary.

    One connection asks one thing after the other; in each round every way has its turn, and a ratio is taken
    within the round: the median is shown.

    Args:
        kicks: of a large call.
        rounds: turns of each way.
    """
    cores = common.cores()
    many = common.kicks(kicks, SEED)
    with tempfile.TemporaryDirectory() as work, common.pinned(cores.load):
        running: dict[str, Server] = {}
        try:
            for name, lane in SERVERS.items():
                settings = {"API_KEY": KEY, "KICKSERVE_PLUGINS": "storage,oip", "KICKSERVE_FASTLANE": lane}
                folder = Path(work, name)
                folder.mkdir()
                running[name] = Server(SERVE, folder, settings, core=cores.server)
            rows = [*compare(running, many[:1], SINGLES, rounds), *compare(running, many, 1, rounds)]
        finally:
            for each in running.values():
                each.end()
    return {"the Open Inference Protocol beside /api/v1, one call at a time": rows}
