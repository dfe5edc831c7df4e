"""The servers that are compared, and the order in which they are loaded: each in its turn, in rounds."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.bench.common import API, KEY, OK, SERVE, Server, cores, load, pinned, write_bodies
from ops.bench.peers import environment
from ops.commands import progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ops.commands import Row

PEERS: Final = Path(__file__).resolve().with_name("peers")
WARM_CONNECTIONS: Final = 8
KILLED: Final = "all, and after `kill -9`"
_LOGISTIC: Final = "logistic"
_FOREST: Final = "forest"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server to compare.

    Attributes:
        name: its name on the command line and in tables.
        what: one line that describes it.
        command: how it is started; with `{port}` for its port.
        predict: the path that takes a kick.
        ready: the path that answers 200 once it is up.
        settings: variables of its process.
        environment: the environment below `.venv-bench` that it needs; empty where ours will do.
        program: the program of the system that it needs.
        model: the kind of the model that is fitted for it.
        keeps: what is kept of its answers, in a few words.
        database: the SQLite file in its folder with a row in `predictions` for each answer.
        drains: whether answers reach the database later.
    """

    name: str
    what: str = ""
    command: tuple[str, ...] = SERVE
    predict: str = f"{API}/predict"
    ready: str = f"{API}/health/ready"
    settings: Mapping[str, str] = field(default_factory=lambda: {"API_KEY": KEY})
    environment: str = ""
    program: str = ""
    model: str = ""
    keeps: str = KILLED
    database: str | None = "kickserve.db"
    drains: bool = True

    def lacks(self) -> str:
        """Make what it needs; return why it can't run here, empty where it can."""
        if self.program and shutil.which(self.program) is None:
            return f"{self.program} is not installed"
        if self.environment and not environment.make(self.environment):
            return "its packages can't be installed, for the reason above"
        if self.model:
            environment.fit(self.environment, self.model)
        return ""


def variant(name: str, what: str = "", keeps: str = KILLED, **settings: str) -> Contender:
    """Return kickserve with some settings."""
    return Contender(name=name, what=what, keeps=keeps, settings={"API_KEY": KEY, **settings})


def _peer(name: str, what: str, *command: object, **more: Any) -> Contender:
    usual = {"predict": "/predict", "ready": "/health", "keeps": "none", "database": None, "drains": False}
    return Contender(name=name, what=what, command=tuple(map(str, command)), **{**usual, **more})


def _pipeline(name: str, what: str, home: str = environment.PEERS, **more: Any) -> Contender:
    """Return a peer that serves the scikit-learn pipeline: `NAME_peer.py PORT MODEL`."""
    script = PEERS / f"{name}_peer.py"
    command = (environment.python(home), script, "{port}", environment.model(home, _LOGISTIC))
    return _peer(name, what, *command, environment=home, model=_LOGISTIC, **more)


_GRANIAN: Final = "-m granian --interface asgi --no-ws --host 127.0.0.1 --port {port} --working-dir"
_LEAN: Final = environment.python(environment.LEAN)
ALL: Final = (
    _peer(
        "raw",
        "no framework: httptools, uvicorn's parser, in a protocol of asyncio, and the bytes of `bare`",
        *(sys.executable, PEERS / "raw.py", "{port}"),
    ),
    _peer(
        "nginx",
        "nginx that answers with the bytes of `bare` out of its configuration",
        *(sys.executable, PEERS / "nginx.py", "{port}"),
        program="nginx",
    ),
    _peer(
        "bare",
        "ASGI on the same uvicorn that reads the body and answers as many bytes as a prediction has",
        *(sys.executable, PEERS / "bare.py", "{port}"),
    ),
    _peer(
        "granian",
        "the application of `bare` on Granian, a server in Rust",
        *(environment.python(environment.PEERS), *_GRANIAN.split(), PEERS, "bare:app"),
        environment=environment.PEERS,
    ),
    Contender(
        name="lean",
        what="kickserve installed alone, without extras: key, journal, SQLite",
        command=(str(_LEAN), *SERVE[1:]),
        environment=environment.LEAN,
    ),
    variant(
        "kickserve", "kickserve with every extra: key, journal, SQLite, metrics, drift, all as by default"
    ),
    variant(
        "fsync",
        "the same with KICKSERVE_JOURNAL=fsync",
        keeps="all, and after a power failure",
        KICKSERVE_JOURNAL="fsync",
    ),
    Contender(
        name="forest",
        what="`kickserve` with a random forest of 100 trees as its model",
        settings={
            "API_KEY": KEY,
            "KICKSERVE_MODEL": str(environment.model(environment.OURS, _FOREST)),
            "KICKSERVE_ALLOW_PICKLE": "1",
        },
        model=_FOREST,
    ),
    _pipeline(
        "fastapi",
        "FastAPI, pydantic, a DataFrame of one row, a scikit-learn pipeline, SQLAlchemy's ORM on SQLite",
        keeps="all",
        database="fastapi.db",
    ),
    _pipeline("litserve", "LitServe with one worker, a DataFrame of one row, the same pipeline"),
    _pipeline("bentoml", "BentoML with one worker, the same", ready="/readyz"),
    _pipeline(
        "mlserver", "MLServer in one process, the same", environment.MLSERVER, ready="/v2/health/ready"
    ),
)
BY_NAME: Final = {each.name: each for each in ALL}


@dataclass
class Tally:
    """Answers of a server against rows in its store.

    Attributes:
        server: its name.
        answered: answers that clients received.
        cut: answers that may have been on their way when the load ended: one a connection, each time.
        stored: rows in its database; None where it keeps nothing.
        errors: refusals, broken connections and timeouts.
    """

    server: str
    answered: int = 0
    cut: int = 0
    stored: int | None = None
    errors: int = 0

    def add(self, answered: int, *, cut: int = 0, errors: int = 0) -> None:
        """Count answers."""
        self.answered += answered
        self.cut += cut
        self.errors += errors

    @property
    def agrees(self) -> bool:
        """Whether every answer is stored, and nothing else but answers that were cut off."""
        return self.stored is None or 0 <= self.stored - self.answered <= self.cut


class Running:
    """A contender that runs.

    Args:
        contender: which.
        work: where its folder is made; not in memory, as servers write to disk.
        pin: whether it is kept on the core for servers.
    """

    def __init__(self, contender: Contender, work: Path, *, pin: bool = True) -> None:
        self.contender = contender
        self.tally = Tally(contender.name)
        self._bodies = write_bodies(work)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
        core = cores().server if pin else None
        self.server = Server(contender.command, folder, contender.settings, ready=contender.ready, core=core)

    def check(self) -> None:
        """Look that it answers a kick with a probability: an error would be answered fast, too."""
        with self._bodies.open() as lines:
            status, answer = self.server.ask("POST", self.contender.predict, lines.readline())
        if status != OK or not 0 <= json.loads(answer)["prediction"] <= 1:
            raise SystemExit(f"{self.contender.name} answers a kick with {status}: {answer!r}")
        self.tally.add(1)

    def load(self, connections: int, seconds: float) -> Row:
        """Load it, and count the answers."""
        found = load(self.server.url + self.contender.predict, connections, seconds, self._bodies)
        self.tally.add(found["requests"], cut=connections, errors=found["errors"])
        return found

    def drain(self) -> float:
        """Wait until nothing is left to do; return the seconds until all is stored."""
        took = self.server.drain() if self.contender.drains else 0.0
        self.server.rest()
        return took

    def turn(self, connections: int, number: int, seconds: float) -> Row:
        """Let it go on for a turn, and measure it: CPU time in µs a request, memory in MB (10⁶ bytes)."""
        server = self.server
        server.resume()
        before, began = server.cpu(), time.perf_counter()
        found = self.load(connections, seconds)
        loaded, ended = server.cpu(), time.perf_counter()
        drained = self.drain()
        rested = server.cpu()
        rss, uss = server.memory()
        server.suspend()
        return {
            "server": self.contender.name,
            "connections": connections,
            "round": number,
            **found,
            "cpu_us_load": (loaded - before) / max(found["requests"], 1) * 1e6,
            # With the work that follows, and with the requests under way when the load was cut off.
            "cpu_us_total": (rested - before) / (found["requests"] + connections) * 1e6,
            "drain_seconds": drained,
            "rss_mb": rss,
            "uss_mb": uss,  # not shared with other processes
            "server_share": (loaded - before) / (ended - began),  # of a core
        }

    def end(self) -> int:
        """End it, count the rows of its database, and return its exit code."""
        code = self.server.end()
        if self.contender.database is not None:
            file = self.server.folder / self.contender.database
            connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
            [(self.tally.stored,)] = connection.execute("SELECT count(*) FROM predictions")
            connection.close()
        return code


@dataclass
class Turns:
    """Servers take turns: all run, and in each round each is loaded while the others are suspended.

    Attributes:
        servers: who is compared.
        connections: the numbers of clients, one after the other.
        rounds: how often.
        seconds: how long a turn is.
        work: a folder for files.
        running: the class of a contender that runs.
        measurements: a row for each turn.
        tallies: answers and rows of each server.
        starts: seconds that each server took to start.
        failures: events that must not happen.
    """

    servers: Sequence[Contender]
    connections: Sequence[int]
    rounds: int
    seconds: float
    work: Path
    running: type[Running] = Running
    measurements: list[Row] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Take all turns."""
        with pinned(cores().load), ExitStack() as stack:
            running = [self._started(server, stack) for server in self.servers]
            for number in range(1, self.rounds + 1):
                first = (number - 1) % len(running)  # none is always the first
                self._round(number, [*running[first:], *running[:first]])
            for each in running:
                code = each.end()
                if each.contender.drains and code:
                    self.failures.append(f"{each.contender.name} ended with the exit code {code}")
                self.tallies.append(each.tally)

    def _round(self, number: int, running: list[Running]) -> None:
        for connections in self.connections:
            for each in running:
                progress.print(f"round {number}, {connections} connections: {each.contender.name}")
                self.measurements.append(each.turn(connections, number, self.seconds))

    def _started(self, server: Contender, stack: ExitStack) -> Running:
        running = self.running(server, self.work)
        stack.callback(running.server.end)
        self.starts[server.name] = running.server.start_seconds
        running.check()
        running.load(WARM_CONNECTIONS, 1)
        running.drain()
        running.server.suspend()
        return running
