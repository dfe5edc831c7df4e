"""Measures batches: what a kick costs beside the least that it can, and how long others wait.

The least is msgspec's decoding of the same body, one matrix product, and msgspec's encoding of the same
answers, on the core of the server, in turns with the batches.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import numpy as np

from kickserve.features import COUNT
from kickserve.schemas import BATCH_MAX, Kick, Prediction
from ops.bench import common
from ops.bench.common import API, HOST, KEY, SERVE, Server

if TYPE_CHECKING:
    from ops.commands import Row

TERMS: Final = 24  # columns of the product, as many as the packaged model's
PARQUET: Final = 1_000_000  # kicks of the file
JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"


class Lone:
    """Sends one kick after the other on a connection of its own, and notes how long each answer takes.

    Args:
        server: the one to ask.
    """

    def __init__(self, server: Server) -> None:
        self.seconds: list[float] = []
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=common.PATIENCE)
        kick, headers = json.dumps(common.kicks(1)[0]), {"X-API-Key": KEY}
        while not self._ended.is_set():
            began = time.perf_counter()
            connection.request("POST", f"{API}/predict", kick, headers)
            connection.getresponse().read()
            self.seconds.append(time.perf_counter() - began)
            time.sleep(0.001)
        connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def batches(rounds: int = 9, kicks: int = 10_000) -> dict[str, list[Row]]:
    """Measure batches over the API as JSON and NDJSON, and `kickserve batch` from Parquet to Parquet.

    Args:
        rounds: batches of each kind.
        kicks: in a batch.
    """
    sent = common.kicks(kicks)
    bodies = {
        JSON: json.dumps(sent).encode(),
        LINES: b"".join(json.dumps(kick).encode() + b"\n" for kick in sent),
    }
    largest = json.dumps(common.kicks(BATCH_MAX)).encode()
    with tempfile.TemporaryDirectory(prefix="work-", dir=Path.cwd()) as name:
        server = Server(SERVE, Path(name), {"API_KEY": KEY}, core=common.cores().server)
        try:
            rows = [measured(server, kind, body, rounds, kicks) for kind, body in bodies.items()]
            waits = [waiting(server, kind, body, rounds) for kind, body in bodies.items()]
            waits.append({**waiting(server, JSON, largest, rounds), "beside": f"{BATCH_MAX:,} as JSON"})
        finally:
            server.end()
        one, all_of_them = (parquet(Path(name), size) for size in (1, PARQUET))
    least = rows[0]["least_us"]
    file_us = (all_of_them - one) * 1e6 / PARQUET
    rows.append({"batch": "Parquet", "us": file_us, "least_us": least, "times_the_least": file_us / least})
    return {
        f"µs a kick among {kicks:,}, until all are answered; of Parquet CPU beyond that of one kick": rows,
        "ms that a lone kick waits beside batches that follow one another": waits,
    }


def parquet(folder: Path, kicks: int) -> float:
    """Return the CPU seconds of `kickserve batch` from Parquet to Parquet."""
    common.command(folder, "simulate", "--size", str(kicks), "--output", f"{kicks}.parquet")
    run = common.command(folder, "batch", f"{kicks}.parquet", "--output", f"{kicks}-answers.parquet")
    return run["cpu_seconds"]


def measured(server: Server, kind: str, body: bytes, rounds: int, kicks: int) -> Row:
    """Compare the time to the answer of a batch with the least, in turns."""
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        answer = posted(server, kind, body)
        took = time.perf_counter() - began
        server.drain()
        server.rest()
        with common.pinned(common.cores().server):
            pairs.append((took, least(kind, body, answer, kicks)))
    ours, floor = (1e6 * median(each) / kicks for each in zip(*pairs, strict=True))
    ratio = median(took / floor for took, floor in pairs)
    return {"batch": kind, "us": ours, "least_us": floor, "times_the_least": ratio}


def posted(server: Server, kind: str, body: bytes) -> bytes:
    """Post a batch, and return the answer."""
    status, answer = server.ask("POST", f"{API}/predict/batch", body, {"Content-Type": kind, "Accept": kind})
    if status != common.OK:
        raise SystemExit(f"a batch was answered with {status}: {answer[:500]!r}")
    return answer


def least(kind: str, body: bytes, answer: bytes, kicks: int) -> float:
    """Return the seconds of decoding, product and encoding."""
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Kick if kind == LINES else list[Kick])
    answers: Any
    if kind == LINES:
        answers = msgspec.json.Decoder(Prediction).decode_lines(answer)
        calls = decoder.decode_lines, encoder.encode_lines
    else:
        answers = msgspec.json.decode(answer, type=list[Prediction])
        calls = decoder.decode, encoder.encode
    matrix, weights = np.ones((kicks, COUNT)), np.ones((COUNT, TERMS))
    began = time.perf_counter()
    calls[0](body)
    matrix @ weights
    calls[1](answers)
    return time.perf_counter() - began


def waiting(server: Server, kind: str, body: bytes, rounds: int) -> Row:
    """Ask for lone kicks beside batches, and return how long they wait."""
    with Lone(server) as alone:
        time.sleep(0.5)
    # From a process of its own, begun before there are threads: Python's lock here would delay the lone ones.
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def send() -> None:
        ready.wait()
        for _ in range(rounds):
            posted(server, kind, body)

    process = context.Process(target=send, daemon=True)
    process.start()
    with Lone(server) as beside:
        ready.set()
        process.join()
    if process.exitcode:
        raise SystemExit("a batch was not answered, for the reason above")
    quiet, found = (1e3 * np.array(each.seconds) for each in (alone, beside))
    return {
        "beside": kind,
        "kicks": len(found),
        "p50_alone": float(np.median(quiet)),
        "p50": float(np.median(found)),
        "p99": float(np.percentile(found, 99)),
        "longest": float(found.max()),
    }
