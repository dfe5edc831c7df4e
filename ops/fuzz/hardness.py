"""Attacks a real server as slow, rude and numerous clients do, while others are served as ever.

`just fuzz hardness` runs all attacks (about two minutes); `just fuzz hardness --only slow idle` some. Ends
with 1 where an attack got through: a client that holds on for ever, memory that grows, two answers to one
ambiguous request, or an error for well-behaved clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table
from serving import Server, serving

from ops.fuzz.shapes import AMBIGUOUS, KICK, OVERSIZED, POST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Row = dict[str, Any]
MEGABYTE: Final = 1e6
STEADY: Final = 8  # clients that ask as one should
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
RECORDS: Final = 20_000
GROWTH_MAX: Final = 30.0  # MB that the server may grow by while an answer of many is not taken


class Target:
    """A server under attack.

    Attributes:
        address: host and port.
        timeout: its KICKSERVE_CLIENT_TIMEOUT in seconds.
    """

    def __init__(self, server: Server, timeout: float) -> None:
        self._server = server
        self.timeout = timeout
        url = urlsplit(server.url)
        self.address = (url.hostname or "", url.port or 0)

    def memory(self) -> float:
        """Return the resident memory of the server, in MB."""
        return float(psutil.Process(self._server.process.pid).memory_info().rss) / MEGABYTE

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(*self.address)

    async def exchange(self, sent: bytes, patience: float = 5.0) -> tuple[bytes, bool]:
        """Send bytes; return the answer until the end or silence, and whether it was the end."""
        reader, writer = await self.connect()
        answer = b""
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                await writer.drain()
            while part := await asyncio.wait_for(reader.read(65_536), patience if not answer else 0.5):
                answer += part
        except TimeoutError:
            return answer, False
        except ConnectionError:
            pass
        finally:
            writer.close()
        return answer, True


class Steady:
    """Clients that ask as one should, while others attack.

    Attributes:
        failed: questions that were not answered with 200.
        times: how long answers took, in ms.
    """

    def __init__(self, target: Target) -> None:
        self.failed = 0
        self.times: list[float] = []
        self._target = target
        self._ended = False

    async def __aenter__(self) -> Self:
        self._connections = [await self._target.connect() for _ in range(STEADY)]
        self._tasks = [asyncio.create_task(self._ask(*each)) for each in self._connections]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True  # each finishes its request
        await asyncio.gather(*self._tasks)
        for _, writer in self._connections:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._ended:
            began = time.perf_counter()
            try:
                writer.write(POST)
                async with asyncio.timeout(10):
                    head = await _answer(reader)
                self.failed += not head.startswith(b"HTTP/1.1 200 ")
            except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                self.failed += 1
                return
            self.times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.01)

    def p99(self, since: int = 0) -> float:
        """Return the 99th percentile of the times from one on, in ms."""
        return round(statistics.quantiles(self.times[since:], n=100)[98], 2)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer, and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head


async def slow(target: Target, clients: int, begun: bytes) -> Row:
    """Have clients send a byte now and then."""

    async def dribble() -> tuple[bytes, float]:
        reader, writer = await target.connect()
        began = time.perf_counter()
        writer.write(begun)
        answer = asyncio.create_task(reader.read())
        while not answer.done() and time.perf_counter() - began < target.timeout + 10:
            with contextlib.suppress(ConnectionError):
                writer.write(b"a")
            await asyncio.wait([answer], timeout=0.2)
        writer.close()
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(answer, 1), time.perf_counter() - began
        return b"", time.perf_counter() - began

    async with Steady(target) as steady:
        await asyncio.sleep(1)
        before, asked = steady.p99(), len(steady.times)
        ended = await asyncio.gather(*(dribble() for _ in range(clients)))
        during = steady.p99(asked)
    timely = sum(answer.startswith(b"HTTP/1.1 408 ") for answer, _ in ended)
    return {
        "clients": clients,
        "answered_408": timely,
        "longest_s": round(max(seconds for _, seconds in ended), 1),
        "p99_before_ms": before,
        "p99_during_ms": during,
        "others_failed": steady.failed,
        "passed": timely == clients and not steady.failed,
    }


async def idle(target: Target, clients: int) -> Row:
    """Have many clients connect and say nothing."""
    async with Steady(target) as steady:
        await asyncio.sleep(1)
        before, asked, memory = steady.p99(), len(steady.times), target.memory()
        sockets = [await _silent(target.address) for _ in range(clients)]
        await asyncio.sleep(1)
        grown, during = target.memory() - memory, steady.p99(asked)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(target.timeout + 15):
                closed = await asyncio.gather(*(loop.sock_recv(each, 1) for each in sockets))
        except TimeoutError:
            closed = []
        for each in sockets:
            each.close()
    return {
        "clients": clients,
        "kB_a_connection": round(grown * 1000 / clients, 1),
        "closed": len(closed),
        "p99_before_ms": before,
        "p99_during_ms": during,
        "others_failed": steady.failed,
        "passed": len(closed) == clients and not steady.failed,
    }


async def _silent(address: tuple[str, int]) -> socket.socket:
    silent = socket.socket()
    silent.settimeout(0)
    await asyncio.get_running_loop().sock_connect(silent, address)
    return silent


async def crowded(target: Target, most: int) -> Row:
    """Open more connections than there may be; then go, and see that others may come."""
    pairs = [await target.connect() for _ in range(most)]
    await asyncio.sleep(0.2)
    answers = [await target.exchange(POST) for _ in range(20)]
    for _, writer in pairs:
        writer.close()
    await asyncio.sleep(0.5)
    again, _ = await target.exchange(POST)
    refused = sum(answer.startswith(b"HTTP/1.1 503 ") and end for answer, end in answers)
    return {"refused_503": refused, "passed": refused == len(answers) and again.startswith(b"HTTP/1.1 200 ")}


async def oversized(target: Target) -> Row:
    """Send heads that are too long."""
    memory = target.memory()
    found = {name: await target.exchange(sent) for name, sent in OVERSIZED.items()}
    statuses = {name: answer[9:12].decode() for name, (answer, _) in found.items()}
    good = all(
        end and status == "431" for (_, end), status in zip(found.values(), statuses.values(), strict=True)
    )
    return {**statuses, "grown_MB": round(target.memory() - memory, 1), "passed": good}


async def ambiguous(target: Target) -> Row:
    """Send what two servers in a row could take for different requests: one answer at most, and the end."""
    wrong = {}
    for name, sent in AMBIGUOUS.items():
        answer, end = await target.exchange(sent)
        if answer.count(b"HTTP/1.1 ") != 1 or not answer.startswith(b"HTTP/1.1 400 ") or not end:
            wrong[name] = repr(answer[:200])
    return {"shapes": len(AMBIGUOUS), "wrong": wrong, "passed": not wrong}


async def greedy(target: Target) -> Row:
    """Ask for all records, and take none: unread answers must not pile up."""
    body = b"[" + b",".join([KICK] * RECORDS) + b"]"
    kept, _ = await target.exchange(_post("/predict/batch", body), patience=60)
    assert kept.startswith(b"HTTP/1.1 200 "), kept[:200]
    memory = target.memory()
    lines = b"GET /api/v1/predictions HTTP/1.1\r\nHost: test\r\nAccept: application/x-ndjson\r\n\r\n"
    connections = []
    async with Steady(target) as steady:
        for _ in range(10):
            connections.append(each := await _silent(target.address))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_sendall(each, lines)
        most = 0.0
        dropped = 0
        until = time.perf_counter() + target.timeout + 15
        while dropped < len(connections) and time.perf_counter() < until:
            await asyncio.sleep(0.25)
            most = max(most, target.memory() - memory)
            dropped = len(connections) - _taken_up(target)
    for each in connections:
        each.close()
    good = most < GROWTH_MAX and dropped == len(connections) and not steady.failed
    return {"grown_MB": round(most, 1), "dropped": dropped, "others_failed": steady.failed, "passed": good}


def _taken_up(target: Target) -> int:
    """Count the server's connections, but for those of the steady clients."""
    connections = psutil.Process(target._server.process.pid).net_connections("tcp")  # noqa: SLF001
    return max(0, sum(each.status == psutil.CONN_ESTABLISHED for each in connections) - STEADY)


async def half_closed(target: Target) -> Row:
    """Say that nothing more will come, and wait for the answer."""
    answered = 0
    for path, body in [("/predict", KICK), ("/explain", KICK), ("/predict/batch", b"[" + KICK + b"]")]:
        reader, writer = await target.connect()
        writer.write(_post(path, body))
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            answered += (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    return {"answered": answered, "passed": answered == 3}  # noqa: PLR2004  all of them


async def resets(target: Target, clients: int) -> Row:
    """Break off in the middle of a body, with RST."""
    async with Steady(target) as steady:
        for _ in range(clients):
            rude = await _silent(target.address)
            await asyncio.get_running_loop().sock_sendall(rude, POST[:-20])
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            rude.close()
        await asyncio.sleep(0.5)
    left = _taken_up(target)
    return {
        "clients": clients,
        "left": left,
        "others_failed": steady.failed,
        "passed": not left + steady.failed,
    }


async def pipelined(target: Target, many: int) -> Row:
    """Send many requests without waiting: each has its answer, in order."""
    reader, writer = await target.connect()
    numbers = range(many)
    writer.write(b"".join(POST.replace(b"Host", b"X-Request-ID: r%d\r\nHost" % number) for number in numbers))
    ids = []
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
        for _ in numbers:
            async with asyncio.timeout(10):
                head = await _answer(reader)
            ids.append(head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0])
    writer.close()
    return {"answered": len(ids), "passed": ids == [b"r%d" % number for number in numbers]}


def _post(path: str, body: bytes) -> bytes:
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def attacks(
    options: argparse.Namespace,
) -> dict[str, tuple[dict[str, str], Callable[[Target], Awaitable[Row]]]]:
    """Return the attacks by name: the settings of the server, and the function."""
    in_body = POST[: -len(KICK)]
    return {
        "slow head": ({}, lambda target: slow(target, options.slow, POST[:40])),
        "slow body": ({}, lambda target: slow(target, options.slow, in_body)),
        "slow body, router": (
            {"KICKSERVE_FASTLANE": "0"},
            lambda target: slow(target, options.slow, in_body),
        ),
        "idle": ({"KICKSERVE_CONNECTIONS_MAX": "50000"}, lambda target: idle(target, options.idle)),
        "crowded": ({"KICKSERVE_CONNECTIONS_MAX": "50"}, lambda target: crowded(target, 50)),
        "oversized": ({}, oversized),
        "ambiguous": ({}, ambiguous),
        "ambiguous, router": ({"KICKSERVE_FASTLANE": "0"}, ambiguous),
        "greedy": ({}, greedy),
        "half closed": ({}, half_closed),
        "half closed, router": ({"KICKSERVE_FASTLANE": "0"}, half_closed),
        "resets": ({}, lambda target: resets(target, options.slow)),
        "pipelined": ({}, lambda target: pipelined(target, 1000)),
    }


def run(options: argparse.Namespace) -> list[Row]:
    """Run the attacks, each on a server of its own; return a row of figures for each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        options.idle = min(options.idle, hard - 500)
    rows = []
    usual = {"KICKSERVE_PLUGINS": "storage", "KICKSERVE_CLIENT_TIMEOUT": str(options.timeout)}
    for name, (changed, attack) in attacks(options).items():
        if options.only and not any(name.startswith(word) for word in options.only):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), **{**usual, **changed}) as server:
            row = asyncio.run(attack(Target(server, options.timeout)))
            code = server.end()
            bugs = [line.strip() for line in server.log if "Traceback" in line]
        rows.append(
            {"attack": name, **row, "exit_code": code, "passed": row["passed"] and not (code or bugs)}
        )
    return rows


def show(rows: list[Row]) -> None:
    """Print the figures for a person."""
    table = Table("attack", "figures", "passed")
    for row in rows:
        figures = ", ".join(f"{key} {value}" for key, value in row.items() if key not in {"attack", "passed"})
        table.add_row(row["attack"], figures, "yes" if row["passed"] else "[red]NO")
    Console(width=140).print(table)


def main() -> None:
    """Read the arguments, attack, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="words that attacks begin with, such as slow")
    parser.add_argument("--idle", type=int, default=10_000, help="connections that say nothing")
    parser.add_argument("--slow", type=int, default=300, help="clients that are slow, or rude")
    parser.add_argument("--timeout", type=float, default=5, help="seconds that the server gives its clients")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    options = parser.parse_args()
    rows = run(options)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
    sys.exit(0 if all(row["passed"] for row in rows) else 1)
