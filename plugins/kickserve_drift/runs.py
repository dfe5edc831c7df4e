"""Full reports: starts one in a process of its own, says how far it has come, and finds those that there are.

One at a time, over all workers: whoever makes a report holds the lock of a file in the folder of reports, and
so does the process that works on it, even where the service has ended meanwhile. That process writes to the
same file how far it has come, a JSON object a line, and what went wrong. So any worker can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import psutil
from msgspec import Struct

from kickserve.errors import KickserveError, NoNewReport, ReportNotFound
from kickserve.schemas import UNDECODABLE
from kickserve_drift.names import NAME, PATH, made_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kickserve.schemas import DriftSummary
    from kickserve.service import Service
    from kickserve.settings import Settings


_LOG: Final = ".evaluate.log"
_GENTLE: Final = 10  # of 19: predictions go first
_TRIES: Final = 20
_PAUSE: Final = 0.05
_PATIENCE: Final = 5.0  # seconds that a report gets to end when the service ends
_ERROR: Final = "Error: "  # how the command line begins to say what went wrong
_INHERITED: Final = (
    *("database_url", "reports", "drift_psi", "drift_share"),
    "model",
)


class Run(Struct, kw_only=True, frozen=True):
    """A report that was asked for.

    Attributes:
        status: `running`, `done` or `failed`.
        started_at: when, UTC.
        stage: what it is at.
        done: how far it has come, 0 to 1.
        report: path of its HTML, once it is done.
        error: what went wrong, where it failed.
    """

    status: str
    started_at: datetime
    stage: str
    done: float
    report: str | None = None
    error: str | None = None


class Report(Struct, kw_only=True, frozen=True):
    """A report that there is.

    Attributes:
        at: when it was made, UTC.
        model: name of the model whose kicks were the reference.
        kicks: how many current kicks it is of.
        drifted: whether they have drifted.
        share: of drifted features by all, 0 to 1.
        html: its path, as a page; null where only the summary is left.
        json: path of the summary.
    """

    at: datetime
    model: str
    kicks: int
    drifted: bool
    share: float
    html: str | None
    json: str


class Reports(Struct, kw_only=True, frozen=True):
    """The reports that there are, newest first, and the one that was asked for last, if any was."""

    newest_run: Run | None
    reports: list[Report]


class _Top(Struct, frozen=True):
    """What a listing takes from the summary of a report."""

    at: datetime
    model: str
    kicks: int
    drifted: bool
    share: float


class _Line(Struct, frozen=True):
    """A line of the log, or all of them together: what a later one leaves out stands as it was."""

    pid: int = 0
    created: float = 0.0
    started_at: datetime = datetime.min.replace(tzinfo=UTC)
    stage: str = "starting"
    done: float = 0.0
    report: str | None = None


class Runs:
    """The reports in one folder.

    Args:
        settings: the folder, and what the process that makes a report has to know.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.reports
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self, service: Service) -> Run:
        """Start a report of what the service has predicted.

        Raises:
            NoNewReport: one is being made; or no other process can read where predictions are kept.
            KickserveError: the folder can't be used.
        """
        if not getattr(service.store, "shared", True):
            raise NoNewReport(
                f"no other process can read {service.store.label}: keep them elsewhere, by DATABASE_URL"
            )
        await service.recorder.flush()
        log = await self._lock()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kickserve", "evaluate", "--json-progress"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **self._settings.variables(*_INHERITED), "OMP_NUM_THREADS": "1"},
            )
            started = _introduce(process.pid, log)
        except BaseException:
            os.close(log)
            raise
        self._process = process
        self._waiting = asyncio.create_task(_wait(process, log), name="report")
        return Run(status="running", started_at=started, stage=_Line().stage, done=0.0)

    async def stop(self) -> None:
        """End what this process has started."""
        if self._process is not None and self._waiting is not None:
            await _end(self._process)
            await self._waiting

    def newest_run(self) -> Run | None:
        """Say how far the report is that was asked for last."""
        try:
            lines = (self._folder / _LOG).read_text(errors="replace").splitlines()
        except OSError:
            return None
        known, words = _understand(lines)
        if not known.pid:
            return None
        run = Run(status="running", started_at=known.started_at, stage=known.stage, done=known.done)
        if _is_alive(known):
            return run
        if known.report is not None:
            html = known.report.removesuffix(".json") + ".html"
            return msgspec.structs.replace(run, status="done", done=1.0, report=f"{PATH}/{html}")
        return msgspec.structs.replace(run, status="failed", error=words or "it ended without a word")

    def listed(self, limit: int) -> list[Report]:
        """Return the newest reports, newest first; what can't be read is left out."""
        found: list[Report] = []
        for name in self._names(".json"):
            if len(found) == limit:
                break
            with contextlib.suppress(OSError, *UNDECODABLE):
                found.append(self._report(name))
        return found

    def with_link(self, summary: DriftSummary) -> DriftSummary:
        """Return a summary that leads to the newest page, where there is one."""
        page = next(self._names(".html"), None)
        return summary if page is None else msgspec.structs.replace(summary, report=f"{PATH}/{page}")

    def newest_at(self) -> datetime | None:
        """Say when the newest report was made."""
        return next(map(made_at, self._names(".json")), None)

    def find(self, name: str) -> Path:
        """Return where a report is.

        Args:
            name: of its file: no other file is ever looked for, and no link leads out of the folder.

        Raises:
            ReportNotFound: there is none of this name.
        """
        path = self._folder / name
        if not NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise ReportNotFound(f"there is no report '{name[:60]}': GET {PATH} lists those that there are")
        return path

    def _names(self, ending: str) -> Iterator[str]:
        """Yield the names of reports, newest first; most callers want the first alone."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  names are enough, and there may be thousands
        except OSError:
            return
        reports = [name for name in names if name.endswith(ending) and NAME.fullmatch(name)]
        yield from (each for each in sorted(reports, reverse=True) if not (self._folder / each).is_symlink())

    def _report(self, name: str) -> Report:
        top = msgspec.json.decode((self._folder / name).read_bytes(), type=_Top)
        page = name.removesuffix(".json") + ".html"
        html = f"{PATH}/{page}" if (self._folder / page).is_file() else None
        return Report(**msgspec.structs.asdict(top), html=html, json=f"{PATH}/{name}")

    async def _lock(self) -> int:
        """Open the log, empty, and hold its lock. Who has just ended lets go of it in a moment."""
        for _ in range(_TRIES):
            try:
                return self._try_lock()
            except NoNewReport:
                run = self.newest_run()
                if run is not None and run.status == "running":
                    raise
                await asyncio.sleep(_PAUSE)
        return self._try_lock()

    def _try_lock(self) -> int:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            log = os.open(self._folder / _LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise KickserveError(f"the folder of reports {self._folder} can't be used: {error}") from error
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(log)
            raise NoNewReport(f"one is being made already: GET {PATH} says how far it has come") from None
        os.truncate(log, 0)
        return log


def _introduce(pid: int, log: int) -> datetime:
    """Write down who makes the report, and since when; let others go before it."""
    created = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        created = process.create_time()
        process.nice(_GENTLE)
    started = datetime.now(UTC)
    who = {"pid": pid, "created": created, "started_at": started}
    os.write(log, msgspec.json.encode(who) + b"\n")
    return started


async def _wait(process: asyncio.subprocess.Process, log: int) -> None:
    """Wait for the end of a process, and let go of the lock only then."""
    try:
        await process.wait()
    finally:
        os.close(log)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def _understand(lines: list[str]) -> tuple[_Line, str]:
    """Put the lines of a log together; return also the last one that was for people."""
    told: dict[str, object] = {}
    words = ""
    for line in lines:
        try:
            told |= msgspec.json.decode(line, type=dict[str, object])
        except UNDECODABLE:
            words = line.strip().removeprefix(_ERROR) or words
    try:
        return msgspec.convert(told, _Line, strict=False), words
    except msgspec.ValidationError:
        return _Line(), words


def _is_alive(line: _Line) -> bool:
    try:
        process = psutil.Process(line.pid)
        # The system gives numbers again: one that began at another time is not it.
        return process.create_time() == line.created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
