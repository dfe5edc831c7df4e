"""Lists who is compared: how each server is started, asked, and counted."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.bench import processes
from ops.bench.peers import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE: Final = Path(__file__).resolve().parent
KEY: Final = "a-key-for-the-benchmark"
API: Final = "/api/v1"
DRAIN_PATIENCE: Final = 300.0
OURS: Final = sys.executable


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server to compare.

    Attributes:
        name: as the command line and the tables have it.
        what: one line on what it is.
        command: how it is started; `{port}` stands for its port.
        predict: the path that takes a kick.
        ready: the path that answers 200 when it is up.
        settings: variables of its environment.
        database: the SQLite file, in its folder, that has a row in `predictions` for each answer.
        drains: whether answers go to the database later, so that it is to be waited for.
        connections: the only numbers of connections that it is measured with, where not all are.
    """

    name: str
    what: str
    command: tuple[str, ...]
    predict: str = "/predict"
    ready: str = "/health"
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    drains: bool = False
    connections: tuple[int, ...] = ()


def _kickserve(
    name: str, what: str, command: tuple[str, ...], connections: tuple[int, ...] = (), **more: str
) -> Contender:
    return Contender(
        name=name,
        what=what,
        command=command,
        predict=f"{API}/predict",
        ready=f"{API}/health/ready",
        settings={"API_KEY": KEY, **more},
        database="kickserve.db",
        drains=True,
        connections=connections,
    )


def _script(python: object, name: str, *arguments: object) -> tuple[str, ...]:
    return (str(python), str(HERE / "peers" / name), "{port}", *map(str, arguments))


_SERVE: Final = (OURS, "-m", "kickserve", "serve", "--port", "{port}")
_THEIRS: Final = environment.python()

ALL: Final = (
    Contender(
        name="bare",
        what="ASGI on the same uvicorn that reads the body and answers as many bytes as a prediction has",
        command=_script(OURS, "bare.py"),
    ),
    _kickserve("kickserve", "`kickserve serve`: key, journal, SQLite, all as it is by default", _SERVE),
    _kickserve("typed", "the same with KICKSERVE_FASTLANE=0", _SERVE, KICKSERVE_FASTLANE="0"),
    Contender(
        name="fastapi",
        what="FastAPI, pydantic, a DataFrame of one row, a scikit-learn pipeline, SQLAlchemy's ORM on SQLite",
        command=_script(_THEIRS, "fastapi_peer.py", environment.LOGISTIC),
        database="fastapi.db",
    ),
    Contender(
        name="litserve",
        what="LitServe with one worker, a DataFrame of one row, the same pipeline; nothing is kept",
        command=_script(_THEIRS, "litserve_peer.py", environment.LOGISTIC),
    ),
    _kickserve(
        "forest",
        "kickserve with a random forest of 100 trees behind it",
        _script(_THEIRS, "forest.py", environment.FOREST),
        connections=(1, 32),
    ),
)
BY_NAME: Final = {each.name: each for each in ALL}


class Running:
    """A contender that runs.

    Args:
        contender: which.
        folder: an empty one for its files.
        core: where it is kept.
    """

    def __init__(self, contender: Contender, folder: Path, core: int | None) -> None:
        self.contender = contender
        self.folder = folder
        port = processes.free_port()
        self.server = processes.Server(
            [part.format(port=port) for part in contender.command],
            port,
            folder,
            dict(contender.settings),
            processes.Start(contender.ready, core),
        )
        self.url = self.server.url + contender.predict

    def check(self, bodies: Path) -> None:
        """Look that it answers a kick with a probability: an error would be answered fast, too."""
        with bodies.open() as lines:
            body = lines.readline()
        headers = {"Content-Type": "application/json", "X-API-Key": KEY}
        status, answer = self.server.ask("POST", self.contender.predict, body, headers)
        if status != processes.OK or not 0 <= json.loads(answer)["prediction"] <= 1:
            raise SystemExit(f"{self.contender.name} answers a kick with {status}: {answer!r}")

    def drained(self) -> float:
        """Wait until nothing is left to do of what was answered; return the seconds that it took."""
        began = time.perf_counter()
        if self.contender.drains:
            # The list waits for all that was answered before it, and says 503 where that takes long.
            while self._list() != processes.OK:
                if time.perf_counter() - began > DRAIN_PATIENCE:
                    raise SystemExit(f"{self.contender.name} does not drain:\n{self.server.log()}")
        took = time.perf_counter() - began
        self.server.rest()
        return took

    def _list(self) -> int:
        return self.server.ask("GET", f"{API}/predictions?limit=1", headers={"X-API-Key": KEY})[0]

    def stored(self) -> int | None:
        """Count the rows in its database; None where it has none."""
        if self.contender.database is None:
            return None
        file = self.folder / self.contender.database
        connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
        try:
            [(number,)] = connection.execute("SELECT count(*) FROM predictions")
            return int(number)
        finally:
            connection.close()
