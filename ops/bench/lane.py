"""Counts the instructions of a prediction by stage, under valgrind: the same count on a busy machine.

Bytes go in and out by memory, so that neither sockets nor the store behind the journal are counted.
"""
# ruff: noqa: SLF001 - the stages of the lane are no one else's business

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop
from uvicorn.server import ServerState

from kickserve import predictor
from kickserve.app import create_app
from kickserve.schemas import row_of
from kickserve.server import configuration
from kickserve.settings import Settings
from kickserve.validation import read_kick
from ops.bench import common
from ops.bench.peers import bare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kickserve.plugins import App
    from ops.commands import Row

    Stage = Callable[[], Awaitable[None] | object]

TIMES: Final = 300  # that a stage is measured
WARM: Final = 100
MANY: Final = 32
DATE: Final = (b"date", b"Tue, 01 Dec 2026 00:00:00 GMT")


def lane() -> list[Row]:
    """Count the instructions of a prediction, whole and by stage, beside those of an empty application."""
    if shutil.which("valgrind") is None:
        raise SystemExit("the benchmark needs valgrind: `apt-get install valgrind` on Debian")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        # Each call of this function of the C library writes what was counted since the last one.
        options = ["--tool=callgrind", "--dump-before=getloadavg", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            ["valgrind", *options, sys.executable, "-m", "ops.bench.lane", folder],
            env=common.environment(PYTHONHASHSEED="0", API_KEY=common.KEY),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"the counted process failed:\n{done.stderr[-3_000:]}")
        requests: dict[str, int] = json.loads(done.stdout)
        # Before each measured part stands its warming up.
        dumps = (out.with_suffix(f".{2 * number}") for number in range(1, len(requests) + 1))
        counts = [_total(dump) // count for dump, count in zip(dumps, requests.values(), strict=True)]
    shares = (count / counts[0] for count in counts)
    names = ("stage", "instructions", "of bare")
    return [dict(zip(names, row, strict=True)) for row in zip(requests, counts, shares, strict=True)]


def _total(dump: Path) -> int:
    [total] = re.findall(r"^summary: (\d+)", dump.read_text(), re.MULTILINE)
    return int(total)


class Memory(asyncio.Transport):
    """Takes what a connection writes.

    Attributes:
        answers: how many it has taken.
    """

    def __init__(self) -> None:
        super().__init__({"peername": (common.HOST, 1), "sockname": (common.HOST, 2)})
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes, which end an answer or not."""
        self.answers += bytes(data[-1:]) == b"}"

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False


class Clients:
    """Some clients of an application, each with a connection of its own.

    Args:
        config: of the server.
        path: that they post kicks to.
        count: how many they are.

    Attributes:
        connections: the server's ends.
    """

    def __init__(self, config: uvicorn.Config, path: str, count: int) -> None:
        if not config.loaded:
            config.load()
        state = ServerState()
        state.default_headers = [DATE]
        self.connections: list[Any] = []
        connect: Any = config.http_protocol_class
        for _ in range(count):
            self.connections.append(connect(config=config, server_state=state, app_state={}))
            self.connections[-1].connection_made(Memory())
        self._bodies = [json.dumps(kick).encode() for kick in common.kicks(500)]
        self._head = f"POST {path} HTTP/1.1\r\nHost: {common.HOST}\r\nX-API-Key: {common.KEY}\r\n"
        self._at = 0

    def request(self) -> tuple[bytes, bytes]:
        """Return the next request, and its body."""
        body = self._bodies[self._at % len(self._bodies)]
        self._at += 1
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return (self._head + fields).encode() + body, body

    async def ask(self) -> None:
        """Have each send a request in the same turn of the event loop, and wait for the answers."""
        for each in self.connections:
            each.transport.answers = 0
            each.data_received(self.request()[0])
        answered = False
        while not answered:
            await asyncio.sleep(0)  # what comes next comes in another turn
            answered = all(each.transport.answers for each in self.connections)


def stages(app: App) -> dict[str, Stage]:
    """Return what is counted, by name."""
    path = f"{common.API}/predict"
    ours = configuration(app, app.settings)
    hour = 3_600  # longer than this takes
    least = uvicorn.Config(
        bare.app, access_log=False, log_config=None, lifespan="off", timeout_keep_alive=hour
    )
    lone = Clients(ours, path, 1)
    connection, (request, body) = lone.connections[0], lone.request()
    head, lane = connection._lane.find_head(request), connection._lane
    scorer = app.predictor.current.scorer
    asked = [(row_of(read_kick(body)), 0.0, None)]
    scores = scorer.score_each(asked)
    [prediction], batch = scorer.record_each(asked, scores)

    def watch() -> None:
        app.metrics.count_predictions(batch)
        for on_predictions in app.predictor._on_predictions:
            on_predictions(batch)

    return {
        "bare: uvicorn with an empty ASGI application": Clients(least, path, 1).ask,
        "kickserve, a lone request": lone.ask,
        f"kickserve, {MANY} requests at once": Clients(ours, path, MANY).ask,
        "head": lambda: lane.find_head(request),
        "key": lambda: lane.admit(head.sent, common.HOST, None),
        "id of the request": lambda: app.request_id(head.sent),
        "decoding": lambda: read_kick(body),
        "model": lambda: scorer.score_each(asked),
        "record": lambda: scorer.record_each(asked, scores),
        "journal": lambda: app.recorder.keep([batch]),
        "metrics, window of drift": watch,
        "answer": lambda: connection.set_result(prediction),
    }


async def _work() -> dict[str, int]:
    """Do the work that is counted; return the number of requests by the name of the stage."""
    predictor._SLOW = 1.0  # type: ignore[misc]  # seconds: under valgrind every model is slow
    app = create_app(Settings.load({**os.environ}))
    app.recorder._journal.open()  # and no store: how often that is written depends on the clock
    found = stages(app)
    gc.disable()  # when it comes is chance; the server has it come seldom
    for stage in found.values():
        for times in (WARM, TIMES):
            for _ in range(times):
                waits = stage()
                if inspect.isawaitable(waits) and not isinstance(waits, asyncio.Future):
                    await waits
            os.getloadavg()
    return {name: TIMES * (MANY if str(MANY) in name else 1) for name in found}


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    print(json.dumps(uvloop.run(_work())))
