"""Counts the instructions of a prediction by stage, under valgrind: the same count on a busy machine.

Bytes go in and out by memory, so that no sockets are counted, and the store behind the journal is a stage of
its own.
"""
# ruff: noqa: SLF001 - the stages of the lane are no one else's business

from __future__ import annotations

import argparse
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
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop
from uvicorn.server import ServerState

from kickserve import predictor
from kickserve.app import create_app
from kickserve.record import Add, encode, operations_in
from kickserve.schemas import row_of
from kickserve.server import configuration
from kickserve.settings import Settings
from kickserve.validation import read_kick
from kickserve_learning.learner import FilterLearner
from ops.bench import common
from ops.bench.peers import bare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kickserve.plugins import App
    from kickserve.predictor import Asked, Scorer
    from ops.commands import Row

    Stage = Callable[[], Awaitable[None] | object]

TIMES: Final = 300  # that a stage is measured
MANY: Final = 32
DATE: Final = (b"date", b"Tue, 01 Dec 2026 00:00:00 GMT")


def lane(learn: str = "", *, named: bool = False) -> list[Row]:
    """Count the instructions of a prediction, whole and by stage, beside those of an empty application.

    Args:
        learn: a value of KICKSERVE_LEARN, to count the same kicks with that beside `off`.
        named: whether kicks name kickers, of whom outcomes were heard.
    """
    if shutil.which("valgrind") is None:
        raise SystemExit("the benchmark needs valgrind: `apt-get install valgrind` on Debian")
    counts = _count("off" if learn else "", named=named)
    bare = next(iter(counts.values()))
    rows: list[Row] = [
        {"stage": stage, "instructions": count, "of bare": count / bare} for stage, count in counts.items()
    ]
    if learn:
        for row, count in zip(rows, _count(learn, named=named).values(), strict=True):
            row |= {learn: count, "more": count - row["instructions"], "of off": count / row["instructions"]}
    return rows


def _count(learn: str, *, named: bool) -> dict[str, int]:
    """Return the instructions of each stage in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        # Each call of this function of the C library writes what was counted since the last one.
        options = ["--tool=callgrind", "--dump-before=getloadavg", f"--callgrind-out-file={out}"]
        arguments = [folder, *(["--named"] if named else [])]
        done = subprocess.run(
            ["valgrind", *options, sys.executable, "-m", "ops.bench.lane", *arguments],
            env=common.environment(PYTHONHASHSEED="0", API_KEY=common.KEY, KICKSERVE_LEARN=learn),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"the counted process failed:\n{done.stderr[-3_000:]}")
        requests: dict[str, int] = json.loads(done.stdout)
        # Before each measured part stands its warming up.
        dumps = (out.with_suffix(f".{2 * number}") for number in range(1, len(requests) + 1))
        return {
            stage: _total(dump) // count for dump, (stage, count) in zip(dumps, requests.items(), strict=True)
        }


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
        kicks: what they post, one after the other.

    Attributes:
        connections: the server's ends.
    """

    def __init__(self, config: uvicorn.Config, path: str, count: int, kicks: Sequence[object]) -> None:
        if not config.loaded:
            config.load()
        state = ServerState()
        state.default_headers = [DATE]
        self.connections: list[Any] = []
        connect: Any = config.http_protocol_class
        for _ in range(count):
            self.connections.append(connect(config=config, server_state=state, app_state={}))
            self.connections[-1].connection_made(Memory())
        self._bodies = [json.dumps(kick).encode() for kick in kicks]
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


def stages(app: App, *, named: bool) -> dict[str, tuple[int, Stage]]:
    """Return what is counted, by name, and the kicks of a call."""
    path = f"{common.API}/predict"
    ours = configuration(app, app.settings)
    hour = 3_600  # longer than this takes
    least = uvicorn.Config(
        bare.app, access_log=False, log_config=None, lifespan="off", timeout_keep_alive=hour
    )
    kicks = common.kicks(500)
    if named:
        kicks = common.named_kicks(kicks)
    lone, many = Clients(ours, path, 1, kicks), Clients(ours, path, MANY, kicks)
    connection, (request, body) = lone.connections[0], lone.request()
    head, lane = connection._lane.find_head(request), connection._lane
    scorer = app.predictor.current.scorer
    gathered = [_asked(many.request()[1]) for _ in range(MANY)]
    scores = scorer.score_each(gathered)
    predictions, batch = scorer.record_each(gathered, scores)
    groups = iter([_group(scorer, gathered, scores) for _ in range(2 * TIMES // MANY)])

    def watch() -> None:
        app.metrics.count_predictions(batch)
        for on_predictions in app.predictor._on_predictions:
            on_predictions(batch)

    kept = SimpleNamespace(set_result=lambda _: None)

    async def store() -> None:
        await app.store.add([each.batch for each in operations_in(next(groups)) if isinstance(each, Add)])

    return {
        "bare: uvicorn with an empty ASGI application": (1, Clients(least, path, 1, kicks).ask),
        "kickserve, a lone request": (1, lone.ask),
        f"kickserve, {MANY} requests at once": (MANY, many.ask),
        "head": (1, lambda: lane.find_head(request)),
        "key": (1, lambda: lane.admit(head.token, None, head.sent)),
        "id of the request": (1, lambda: app.request_id(head.sent)),
        "decoding": (1, lambda: read_kick(body)),
        "model": (MANY, lambda: scorer.score_each(gathered)),
        "record": (MANY, lambda: scorer.record_each(gathered, scores)),
        "journal": (MANY, lambda: app.recorder.put(batch, kept)),
        "metrics, window of drift": (MANY, watch),
        "answer": (1, lambda: connection.set_result(predictions[0])),
        "store, in groups of 1,024": (MANY * MANY, store),
    }


def _asked(body: bytes) -> Asked:
    kick = read_kick(body)
    return row_of(kick), 0.0, kick.kicker


def _group(scorer: Scorer, asked: Sequence[Asked], scores: Any) -> list[bytes]:
    """Return payloads of the journal, for a turn of the store."""
    return [encode(Add(scorer.record_each(asked, scores)[1])) for _ in range(MANY)]


async def _work(*, named: bool) -> dict[str, int]:
    """Do the work that is counted; return the number of requests by the name of the stage."""
    predictor._SLOW = 1.0  # type: ignore[misc]  # seconds: under valgrind every model is slow
    app = create_app(Settings.load({**os.environ}))
    app.recorder._journal.open()  # and nothing drains: how often that happens depends on the clock
    await app.store.open()
    if isinstance(learner := app.predictor.learner, FilterLearner):
        learned = learner.new()
        for at, kick in enumerate(common.named_kicks(common.kicks(500))):
            learned.update(0.7, str(kick["kicker"]), success=at % 4 > 0)
        learner.learn(app.predictor.model.card.revision, learned)
    found = stages(app, named=named)
    gc.disable()  # when it comes is chance; the server has it come seldom
    requests = {}
    for name, (kicks, stage) in found.items():
        calls = max(1, TIMES // (kicks // MANY or 1))
        for times in (max(1, calls // 3), calls):
            for _ in range(times):
                waits = stage()
                if inspect.isawaitable(waits) and not isinstance(waits, asyncio.Future):
                    await waits
            os.getloadavg()
        requests[name] = calls * kicks
    await app.store.close()
    return requests


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--named", action="store_true")
    arguments = parser.parse_args()
    os.chdir(arguments.folder)
    print(json.dumps(uvloop.run(_work(named=arguments.named))))
