"""The folder of reports: finds and writes reports, and has a new one made in a process of its own.

One report at a time, over all workers: the process that makes it writes its progress to a file in the
folder, a JSON object a line, and errors as text, and it holds the lock of that file. So any worker knows
its progress, and whether it still runs, even where the service has been restarted meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from kickserve.errors import need_extra
from kickserve.plugins import KickserveError, MissingExtra, RequestError, atomic_write, plugins_of
from kickserve.schemas import UNDECODABLE
from kickserve_data import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kickserve.plugins import App
    from kickserve.schemas import DriftSummary

PATH: Final = "/api/v1/drift/reports"

_NAME: Final = re.compile(r"drift-(\d{8}T\d{12}Z)\.(html|json)")
_STAMP: Final = "%Y%m%dT%H%M%S%fZ"
_FIRST_STAGE: Final = "starting"
_LOG: Final = ".evaluate.log"
_NICENESS: Final = 10  # of 19: predictions go first
_TRIES: Final = 5
_PAUSE: Final = 0.05
_PATIENCE: Final = 5.0  # seconds that a report gets to end when the service ends
_ERROR: Final = "Error: "  # begins an error of the command line


class ReportNotFound(RequestError):
    """There is no report of this name."""

    status = 404
    title = "Report not found"


class NoNewReport(RequestError):
    """A report is being made already, or none can be made by this service."""

    status = 409
    title = "No report can be started"


class Run(Struct, kw_only=True, frozen=True):
    """A report that was asked for.

    Attributes:
        status: `running`, `done` or `failed`.
        started_at: when, UTC.
        stage: of the work.
        done: share of the work, 0 to 1.
        report: path of its HTML, once it is done.
        error: the reason, where it failed.
    """

    status: str
    started_at: datetime
    stage: str
    done: float
    report: str | None = None
    error: str | None = None


class ReportEntry(Struct, kw_only=True, frozen=True):
    """A report in the list.

    Attributes:
        at: when it was made, UTC.
        model: name of the model whose kicks were the reference.
        kicks: number of kicks that were evaluated.
        drifted: whether they have drifted.
        share: of drifted features by all, 0 to 1.
        html: path of its page; null where only the summary is left.
        json: path of the summary.
    """

    at: datetime
    model: str
    kicks: int
    drifted: bool
    share: float
    html: str | None
    json: str


class ReportList(Struct, kw_only=True, frozen=True):
    """The reports, newest first, and the newest run, if any."""

    newest_run: Run | None
    reports: list[ReportEntry]


class ReportFolder:
    """The folder of reports.

    Args:
        folder: created where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, app: App) -> Run:
        """Start a report on the stored predictions of the service.

        Raises:
            NoNewReport: one is being made; or the extra is missing; or no other process can read the store.
            KickserveError: the folder can't be used.
        """
        try:
            need_reports("A report of drift")
        except MissingExtra as error:
            raise NoNewReport(str(error)) from error
        if not app.store.shared:
            raise NoNewReport(
                f"no other process can read {app.store.label}: choose another store in DATABASE_URL"
            )
        await app.recorder.flush()
        log = await self._lock()
        try:
            run = Run(status="running", started_at=datetime.now(UTC), stage=_FIRST_STAGE, done=0.0)
            os.write(log, msgspec.json.encode({"started_at": run.started_at}) + b"\n")
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kickserve", "evaluate", "--json-progress"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,  # with it goes the lock, until that process ends
                env={**os.environ, **_variables(app), "OMP_NUM_THREADS": "1"},
            )
        finally:
            os.close(log)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        return run

    async def stop(self) -> None:
        """End the report that this process has started."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _PATIENCE)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def newest_run(self) -> Run | None:
        """Return the report that was asked for last, with its progress; None where none was."""
        try:
            with (self._folder / _LOG).open(errors="replace") as log:
                running = not _try_lock(log.fileno(), fcntl.LOCK_SH)
                run, error = _parse(log.read().splitlines())
        except OSError:
            return None
        if run is None or running:
            return run
        if run.report is None:
            return msgspec.structs.replace(
                run, status="failed", error=error or "the process ended without an error message"
            )
        page = run.report.removesuffix(".json") + ".html"
        return msgspec.structs.replace(run, status="done", done=1.0, report=f"{PATH}/{page}")

    def entries(self, limit: int) -> list[ReportEntry]:
        """Return the newest reports that can be read, newest first."""
        found: list[ReportEntry] = []
        for name in self._names(".json"):
            if len(found) == limit:
                break
            with contextlib.suppress(OSError, *UNDECODABLE):
                summary = msgspec.json.decode((self._folder / name).read_bytes(), type=dict[str, object])
                page = name.removesuffix(".json") + ".html"
                html = f"{PATH}/{page}" if (self._folder / page).is_file() else None
                entry = {**summary, "html": html, "json": f"{PATH}/{name}"}
                found.append(msgspec.convert(entry, ReportEntry))
        return found

    def with_link(self, summary: DriftSummary) -> DriftSummary:
        """Return a summary with the path of the newest page, where there is one."""
        page = next(self._names(".html"), None)
        return summary if page is None else msgspec.structs.replace(summary, report=f"{PATH}/{page}")

    def newest_at(self) -> datetime | None:
        """Return when the newest report was made, UTC; None without any."""
        name = next(self._names(".json"), None)
        found = None if name is None else _NAME.fullmatch(name)
        return None if found is None else datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC)

    def find(self, name: str) -> Path:
        """Return the path of a report by the name of its file: no other file, and no link out of the folder.

        Raises:
            ReportNotFound: there is none of this name.
        """
        path = self._folder / name
        if not _NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise ReportNotFound(f"no report has the name '{name[:60]}': GET {PATH} lists all reports")
        return path

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of a report, which appears complete. The JSON comes last: with it a report is listed.

        Raises:
            DataError: it can't be written.
        """
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as part:
                part.write_bytes(content)
        except OSError as error:
            raise DataError(
                f"can't write {path}: {error.strerror or error}. KICKSERVE_REPORTS names another folder"
            ) from error
        return path

    def _names(self, ending: str) -> Iterator[str]:
        """Yield the names of reports, newest first."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  names are enough, and there may be thousands
        except OSError:
            return
        reports = [name for name in names if name.endswith(ending) and _NAME.fullmatch(name)]
        yield from (each for each in sorted(reports, reverse=True) if not (self._folder / each).is_symlink())

    async def _lock(self) -> int:
        """Open the log, empty and locked. `newest_run` of another worker may hold it for a moment."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            log = os.open(self._folder / _LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            for _ in range(_TRIES):
                if _try_lock(log, fcntl.LOCK_EX):
                    os.truncate(log, 0)
                    return log
                await asyncio.sleep(_PAUSE)
        except OSError as error:
            raise KickserveError(f"the folder of reports {self._folder} can't be used: {error}") from error
        os.close(log)
        raise NoNewReport(f"another report is being made: GET {PATH} shows its progress")


def need_reports(what: str) -> None:
    """Make sure that the page of a report can be drawn.

    Args:
        what: needs it, as the subject of a sentence.

    Raises:
        MissingExtra: Evidently, or pandas, is not installed.
    """
    need_extra(what, "reports", {"evidently": "evidently", "pandas": "pandas"})


def name_of(at: datetime) -> str:
    """Return the name of a report that was made at this instant, UTC, without an ending."""
    return f"drift-{at:{_STAMP}}"


def _variables(app: App) -> dict[str, str]:
    """Return the settings of a service as variables, so that a child process has just these.

    The others of all tables are empty, which means their default: the environment of this process, or a file
    `.env`, may hold values that the service was not made with.
    """
    tables = [app.settings, *(plugin.table for plugin in plugins_of(app) if plugin.table is not None)]
    unset = dict.fromkeys((name for table in tables for name in table.variables_known()), "")
    ours = app.settings.variables("database_url", "model")
    return {**unset, **app.settings.environ, **ours, "DATABASE_URL_FILE": ""}  # its content is in ours


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(lines: list[str]) -> tuple[Run | None, str]:
    """Return the run that a log describes, later lines over earlier ones, and the last error in it."""
    fields: dict[str, object] = {"status": "running", "stage": _FIRST_STAGE, "done": 0.0}
    error = ""
    for line in lines:
        try:
            fields |= msgspec.json.decode(line, type=dict[str, object])
        except UNDECODABLE:
            error = line.strip().removeprefix(_ERROR) or error
    try:
        return msgspec.convert(fields, Run, strict=False), error
    except msgspec.ValidationError:
        return None, error
