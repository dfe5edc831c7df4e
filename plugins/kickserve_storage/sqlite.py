"""Keeps predictions in a SQLite file in WAL mode, or in memory."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import aiosqlite

from kickserve.plugins import (
    LabelledPrediction,
    RecordUnfit,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    canonical,
    instant,
)
from kickserve_storage.table import (
    CREATED,
    DELETED_IN,
    FLAG_COLUMNS,
    OUTCOME,
    OUTCOME_AT,
    REMOVE,
    SHADOW,
    TOMBSTONES_DAYS,
    USUAL,
    TableStore,
    columns_of,
    ids_around,
    record_of,
    steps,
    to_millisecond,
    turn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from kickserve.plugins import RecordBatch, SetOutcome
    from kickserve.schemas import Record

    Inode = tuple[int, int]  # with the device
    Statement = tuple[str, Sequence[Sequence[Any]]]  # and the rows of values to run it with

BUSY: Final = 5.0  # seconds to wait for another process that writes
READERS: Final = 2
LIMIT: Final = 30.0  # seconds
STEP_LIMIT: Final = 3_600.0  # seconds: an index over many millions of predictions takes its time
_CLOSING: Final = 2.0  # seconds that a call under way may take when the store is closed
_LOOK: Final = 1.0  # seconds between two looks whether the file was replaced
_MODE: Final = 0o660  # as the journal's, before the umask
_BELONGS: Final = (
    "user.kickserve.database"  # the attribute of a WAL with the inodes of its file and of itself
)
APPLICATION: Final = 0x4B49434B  # "KICK": marks a file as kickserve's
# Rows a statement: each statement costs as much as several rows. Before 3.32 one took 999 values at most.
_TOGETHER: Final = 64 if sqlite3.sqlite_version_info >= (3, 32) else 999 // len((*USUAL, *SHADOW))
_STEP: Final = 4 * _TOGETHER  # rows that are made ready at once: 0.2 ms of the event loop

_STRICT: Final = ", STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
# Each is a step from one version of the schema to the next, and never changes once released.
MIGRATIONS: Final = (
    (
        f"""CREATE TABLE predictions (
            id TEXT NOT NULL PRIMARY KEY,
            created_at INTEGER NOT NULL,
            time_norm REAL NOT NULL,
            distance REAL NOT NULL,
            angle REAL NOT NULL,
            wind_speed REAL NOT NULL,
            precipitation_probability REAL NOT NULL,
            is_left_footed INTEGER NOT NULL,
            game_away INTEGER NOT NULL,
            is_endgame INTEGER NOT NULL,
            is_start INTEGER NOT NULL,
            is_left_side INTEGER NOT NULL,
            has_previous_attempts INTEGER NOT NULL,
            prediction REAL,
            confidence REAL,
            interval_low REAL,
            interval_high REAL,
            model TEXT NOT NULL,
            revision TEXT NOT NULL,
            latency_ms REAL NOT NULL,
            cpu_percent REAL NOT NULL,
            memory_mb REAL NOT NULL,
            status_code INTEGER NOT NULL,
            error TEXT,
            outcome INTEGER,
            outcome_at INTEGER
        ) WITHOUT ROWID{_STRICT}""",
        # This index holds all that quality needs; a prediction enters it with its outcome.
        """CREATE INDEX predictions_judged ON predictions (id, created_at, model, prediction, outcome)
            WHERE outcome IS NOT NULL AND prediction IS NOT NULL""",
        f"PRAGMA application_id = {APPLICATION}",
    ),
    (
        "ALTER TABLE predictions ADD COLUMN shadow_model TEXT",
        "ALTER TABLE predictions ADD COLUMN shadow_revision TEXT",
        "ALTER TABLE predictions ADD COLUMN shadow_prediction REAL",
        "DROP INDEX predictions_judged",
        """CREATE INDEX predictions_judged
            ON predictions (id, created_at, model, prediction, outcome, shadow_model, shadow_prediction)
            WHERE outcome IS NOT NULL AND prediction IS NOT NULL""",
    ),
    (
        f"""CREATE TABLE kickserve_deleted (id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL)
            WITHOUT ROWID{_STRICT}""",
        "CREATE INDEX kickserve_deleted_at ON kickserve_deleted (at)",
    ),
)


def _positional(sql: str) -> str:
    """Spell the values of a statement, each used once and in order, as `?` instead of `$1`."""
    # Not as ?1: Python before 3.12.4 warns of it.
    return re.sub(r"\$\d+", "?", sql)


_REMOVE: Final = _positional(REMOVE)
_DELETED_IN: Final = _positional(DELETED_IN)
_REMEMBER: Final = "INSERT INTO kickserve_deleted (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
_FORGET: Final = "DELETE FROM kickserve_deleted WHERE at < ?"
_SET_OUTCOME: Final = (
    "UPDATE predictions SET outcome = ?, outcome_at = ? WHERE id = ? AND coalesce(outcome_at, 0) <= ?"
)


_log = logging.getLogger(__name__)


@cache
def _insert(columns: tuple[str, ...], rows: int = 1) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO predictions ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - columns
        " ON CONFLICT (id) DO NOTHING"
    )


def _statements(batches: Sequence[RecordBatch]) -> Iterator[Statement]:
    """Yield the statements that insert predictions: as many rows as go `_TOGETHER`, the rest one by one."""
    for step in steps(batches, _STEP):
        names, columns = columns_of(step)
        rows = [*zip(*columns, strict=True)]
        # An error is a rare thing, and not worth a long statement of its own.
        whole = 0 if "error" in names else len(rows) // _TOGETHER * _TOGETHER
        for start in range(0, whole, _STEP):
            ends = range(start, min(start + _STEP, whole), _TOGETHER)
            values = [[*itertools.chain.from_iterable(rows[at : at + _TOGETHER])] for at in ends]
            yield _insert(names, _TOGETHER), values
        yield _insert(names), rows[whole:]


class _Connection(NamedTuple):
    """A connection (a thread of its own), and the lock that keeps its transactions apart."""

    connection: aiosqlite.Connection
    lock: asyncio.Lock


class _Connections(NamedTuple):
    """The connections to one file: all of them, the one that writes, and the readers in turns."""

    every: list[_Connection]
    writer: _Connection
    readers: itertools.cycle[_Connection]
    file: Inode | None
    wal: Inode | None


class SqliteStore(TableStore):
    """A `kickserve.plugins.Store` in a SQLite file or in memory.

    One connection writes, others read meanwhile, and neither waits for the other. A file that is moved away,
    or over which another one is moved, is noticed within a second: the one that is there then is taken up.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://` for memory.
        busy: seconds to wait for another process that writes.
        limit: seconds that a call may take. A disk that hangs keeps its thread, and no call.

    Attributes:
        path: of the file, absolute; None in memory.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(self, url: str, *, busy: float = BUSY, limit: float = LIMIT) -> None:
        self.path = path_of(url)
        self.shared = self.path is not None
        self._busy = busy
        self._limit = limit
        self._wanted = False
        self._read_only = False
        self._connections: _Connections | None = None
        self._opening = asyncio.Lock()
        self._look_at = 0.0  # when to see next whether the file is still the same

    @property
    def label(self) -> str:
        """The URL, with the absolute path."""
        return "sqlite:///:memory:" if self.path is None else f"sqlite:///{self.path}"

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        self._wanted = True
        self._read_only = read_only and self.path is not None and not _is_writable(self.path)
        await self._connected()

    async def close(self) -> None:
        """Let go of every connection. A database in memory is gone with it."""
        self._wanted = False
        connections, self._connections = self._connections, None
        if connections is not None:
            await _close(connections)

    async def add(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all of these or none; one whose id is kept already is passed over."""
        async with self._using(write=True) as connection, _transaction(connection):
            for sql, rows in _statements(batches):  # others get their turn between them
                if rows:
                    await connection.executemany(sql, rows)
            if batches and (gone := await connection.execute_fetchall(_DELETED_IN, ids_around(batches))):
                await connection.executemany(_REMOVE, gone)

    async def delete(self, record_id: str) -> bool:
        """Remove one record, and keep its id from coming back; say whether it was there."""
        now = time.time_ns() // 1_000_000
        async with self._using(write=True) as connection, _transaction(connection):
            cursor = await connection.execute(_REMOVE, [canonical(record_id)])
            await cursor.close()
            if cursor.rowcount:
                await connection.execute(_FORGET, [now - TOMBSTONES_DAYS * 86_400_000])
                await connection.execute(_REMEMBER, [canonical(record_id), now])
        return cursor.rowcount > 0

    async def _rows(self, sql: str, *values: object) -> list[Any]:
        async with self._using(write=False) as connection:
            return list(await connection.execute_fetchall(_positional(sql), values))

    async def _change(self, sql: str, *values: object) -> int:
        async with self._using(write=True) as connection:
            cursor = await connection.execute(_positional(sql), values)
            await cursor.close()
            return cursor.rowcount

    async def _set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        ids = [each.id for each in outcomes]
        known = f"SELECT id FROM predictions WHERE id IN ({', '.join('?' * len(ids))})"  # noqa: S608 - marks
        async with self._using(write=True) as connection, _transaction(connection):
            moments = [to_millisecond(each.at) for each in outcomes]
            rows = [(each.success, at, each.id, at) for each, at in zip(outcomes, moments, strict=True)]
            await connection.executemany(_SET_OUTCOME, rows)
            return {found for (found,) in await connection.execute_fetchall(known, ids)}

    @staticmethod
    def _record(row: Sequence[Any]) -> Record:
        """Turn a row of the table, where instants are milliseconds and flags 0 and 1, into a record."""
        values = list(row)
        for at in (CREATED, OUTCOME_AT):
            values[at] = None if row[at] is None else instant(row[at])
        for at in FLAG_COLUMNS:
            values[at] = row[at] == 1
        values[OUTCOME] = None if row[OUTCOME] is None else row[OUTCOME] == 1
        return record_of(values)

    @staticmethod
    def _labelled(row: Sequence[Any]) -> LabelledPrediction:
        created, model, prediction, outcome, *shadow, _ = row
        return LabelledPrediction(instant(created), model, prediction, outcome == 1, *shadow)

    @asynccontextmanager
    async def _using(self, *, write: bool) -> AsyncIterator[aiosqlite.Connection]:
        """Lend a connection: the one that writes, or one that reads."""
        connections = await self._connected()
        connection, lock = connections.writer if write else next(connections.readers)
        lent = False
        try:
            async with asyncio.timeout(self._limit), lock:
                if self._connections is not connections:
                    raise StoreUnavailable(f"{self.label} was closed during the call: try again")
                lent = True
                with self._in_our_words():
                    yield connection
                if write and self._is_replaced(connections):
                    self._look_at = 0.0
                    raise StoreUnavailable(f"{self.label} was replaced during the call: try again")
        except ValueError:  # aiosqlite's, of a connection that was closed
            if self._connections is connections:
                raise
            raise StoreUnavailable(f"{self.label} was closed during the call: try again") from None
        except TimeoutError:
            if lent and self._connections is connections:
                self._connections = None  # other threads try again
                for each in connections.every:  # they close it when they come back from what they hang in
                    each.connection.stop()
            raise StoreUnavailable(self._silent()) from None

    def _silent(self) -> str:
        return f"{self.label} has not answered for {self._limit:g} s: check its disk, and who has it locked"

    async def _connected(self) -> _Connections:
        if self._connections is None or self._is_due():
            async with turn(self._opening, self._limit, self.label):
                if (old := self._connections) is not None and self._is_replaced(old):
                    self._connections = None
                    # By its inode: another process may have taken up the new file, with a WAL of its own.
                    if self.path is not None and _inode(f"{self.path}-wal") == old.wal:
                        self._set_wal_aside(self.path)
                    await _close(old)
                self._expect_open()
                if self._connections is None:
                    with self._in_our_words():
                        connections = await self._connect()
                    if not self._wanted:  # it was closed meanwhile
                        await _close(connections)
                    self._expect_open()
                    self._connections = connections
                return self._connections
        return self._connections

    def _expect_open(self) -> None:
        if not self._wanted:
            raise StoreUnavailable(f"{self.label} is not open: call open() first")

    def _is_due(self) -> bool:
        """Return, once a second at most, that it is time to look at the file."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK
        return True

    def _is_replaced(self, connections: _Connections) -> bool:
        with suppress(OSError):
            return self.path is not None and _inode(self.path) != connections.file
        return False

    def _set_wal_aside(self, path: Path) -> None:
        """Move the WAL of a file that is gone out of the way: SQLite would replay it into the new file."""
        wal, aside = Path(f"{path}-wal"), Path(f"{path}-wal.replaced")
        with suppress(OSError):
            wal.replace(aside)
            Path(f"{path}-shm").unlink()
        _log.warning(
            "%s was removed or replaced: the file that is there now is taken up. What the old one had not"
            " written back is in %s, of no use without it. `kickserve restore` replaces a database safely",
            self.label,
            aside,
        )

    async def _connect(self) -> _Connections:
        where, readers = ":memory:", 0
        if self.path is not None:
            _check_place(self.path)
            where, readers = read_only_uri(self.path) if self._read_only else str(self.path), READERS
            if not self._read_only:
                create(self.path)
                if _is_stale(self.path):
                    self._set_wal_aside(self.path)
        every: list[_Connection] = []
        try:
            async with asyncio.timeout(self._limit) as limit:
                for _ in range(1 + readers):
                    every.append(_Connection(await self._start(where), asyncio.Lock()))
                    if len(every) == 1:
                        await self._prepare(every[0].connection, limit)
                    # The first read opens the WAL, by its name: now, while it is the one of this file.
                    await self._version(every[-1].connection)
        except BaseException as error:
            await _stop(every)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(self._silent()) from None
            raise
        inodes = (None, None) if self.path is None else _mark(self.path)
        return _Connections(every, every[0], itertools.cycle(every[1:] or every), *inodes)

    async def _start(self, where: str) -> aiosqlite.Connection:
        # No implicit transactions: where one is needed, it is begun by name.
        connection = aiosqlite.connect(where, timeout=self._busy, isolation_level=None, uri=self._read_only)
        connection._thread.daemon = True  # noqa: SLF001 - or a disk that hangs keeps the process from ending
        return await connection

    async def _prepare(self, connection: aiosqlite.Connection, limit: asyncio.Timeout) -> None:
        if self._read_only:
            if (version := await self._version(connection)) < len(MIGRATIONS):
                raise StoreMisconfigured(
                    f"{self.label} has schema {version}, which only a user who may write it can bring to"
                    f" {len(MIGRATIONS)}"
                )
            return
        if self.path is not None:
            await self._switch_to_wal(connection)
            # With WAL this keeps the file whole through a loss of power; the last commits may be missing.
            await connection.execute("PRAGMA synchronous = NORMAL")
            await connection.execute("PRAGMA journal_size_limit = 67108864")
        if await self._version(connection) < len(MIGRATIONS):
            limit.reschedule(asyncio.get_running_loop().time() + STEP_LIMIT)
            await self._migrate(connection)

    async def _switch_to_wal(self, connection: aiosqlite.Connection) -> None:
        """Switch the file to WAL, once and for good.

        Two processes that switch at the same time don't wait for each other as elsewhere: SQLite sees a
        deadlock coming, and refuses one at once because the file is locked. So it is tried again.
        """
        deadline = time.monotonic() + self._busy
        while True:
            try:
                await connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    async def _migrate(self, connection: aiosqlite.Connection) -> None:
        async with _transaction(connection):
            # Another process may have done it while this one waited for the lock.
            for version in range(await self._version(connection), len(MIGRATIONS)):
                await self._step(connection, version)

    async def _step(self, connection: aiosqlite.Connection, version: int) -> None:
        tables = await connection.execute_fetchall(
            "SELECT name FROM sqlite_master WHERE name = 'predictions'"
        )
        if version == 0 and list(tables):
            raise StoreMisconfigured(self._foreign())
        for statement in MIGRATIONS[version]:
            await connection.execute(statement)
        await connection.execute(f"PRAGMA user_version = {version + 1}")

    async def _version(self, connection: aiosqlite.Connection) -> int:
        [(version,)] = await connection.execute_fetchall("PRAGMA user_version")
        [(application,)] = await connection.execute_fetchall("PRAGMA application_id")
        if application not in (0, APPLICATION) or (version and not application):
            raise StoreMisconfigured(self._foreign())
        if version > len(MIGRATIONS):
            raise StoreMisconfigured(
                f"{self.label} has schema {version}, and this kickserve knows {len(MIGRATIONS)}:"
                " upgrade kickserve, or point DATABASE_URL to another file"
            )
        return int(version)

    def _foreign(self) -> str:
        return f"{self.label} was made by another program: point DATABASE_URL to a file of kickserve's own"

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explained(error, self.label) from error
        except OverflowError as error:  # of a whole number of more than 64 bits
            raise RecordUnfit(f"{self.label} can't hold this record: {error}") from error


@asynccontextmanager
async def _transaction(connection: aiosqlite.Connection) -> AsyncIterator[None]:
    """Begin a transaction that may write, and end it as a whole, also when its task is cancelled."""
    try:
        await connection.execute(
            "BEGIN IMMEDIATE"
        )  # a task can be cancelled here, and it is begun all the same
        yield
        await connection.execute("COMMIT")
    except BaseException:
        # What failed may have ended the transaction already, and a thread that hangs ends nothing.
        with suppress(sqlite3.Error, ValueError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await connection.execute("ROLLBACK")
        raise


async def _close(connections: _Connections) -> None:
    """Close connections, after the call that each is busy with, but within some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING):
            for each in connections.every:
                async with each.lock:  # the next one to get it sees that the connections are no longer in use
                    pass
    await _stop(connections.every)


async def _stop(connections: Sequence[_Connection]) -> None:
    closing = [future for each in connections if (future := each.connection.stop()) is not None]
    if closing:
        await asyncio.wait(closing, timeout=_CLOSING)


def create(path: Path) -> None:
    """Make an empty file where none is, which the group may read; SQLite gives its WAL the same mode."""
    with suppress(OSError):  # SQLite says what is wrong
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))


def _is_writable(path: Path) -> bool:
    return not path.exists() or (os.access(path.parent, os.W_OK) and os.access(path, os.W_OK))


def read_only_uri(path: Path) -> str:
    """Return where to open a file that is only read.

    Where no service has it open there is no WAL, and none could be made: then the file does not change.
    """
    return f"{path.absolute().as_uri()}?mode=ro{'' if Path(f'{path}-wal').exists() else '&immutable=1'}"


def _inode(path: Path | str) -> Inode | None:
    """Return device and inode of a file; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _mark(path: Path) -> tuple[Inode | None, Inode | None]:
    """Note on the WAL to which file it belongs, where the file system can; return both inodes."""
    inodes = _inode(path), _inode(f"{path}-wal")
    with suppress(OSError, AttributeError):
        os.setxattr(f"{path}-wal", _BELONGS, str(inodes).encode())
    return inodes


def _is_stale(path: Path) -> bool:
    """Return whether a process that died left the WAL, and the file alone has been replaced since."""
    wal = f"{path}-wal"
    with suppress(OSError, AttributeError):
        noted = os.getxattr(wal, _BELONGS).decode()
        return noted.endswith(f", {_inode(wal)})") and noted != str((_inode(path), _inode(wal)))
    return False


def path_of(url: str) -> Path | None:
    """Read the path out of a URL such as `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Returns:
        The absolute path, or None for a database in memory.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """
    try:  # the URL is never shown: it may be one of another database, with a password in it
        parts = urlsplit(url)
    except ValueError:  # its message may hold a password
        raise StoreMisconfigured("DATABASE_URL can't be understood: write sqlite:///file.db") from None
    if parts.netloc:
        raise StoreMisconfigured(
            "DATABASE_URL needs three slashes before a relative path (sqlite:///kickserve.db),"
            " and four before an absolute one"
        )
    if parts.query or parts.fragment:
        raise StoreMisconfigured(
            "DATABASE_URL: a SQLite URL takes no parameters. Take out what follows '?' or '#', or write these"
            " as %3F and %23 in a file's name"
        )
    name = unquote(parts.path).removeprefix("/")
    return None if name in ("", ":memory:") else Path(name).absolute()


def _check_place(path: Path) -> None:
    """Raise StoreMisconfigured for a place where no file can be; SQLite's own error names no reason."""
    if not path.parent.is_dir():
        raise StoreMisconfigured(
            f"the folder {path.parent} for {path.name} does not exist: make the folder, or point"
            " DATABASE_URL elsewhere"
        )
    if path.is_dir():
        raise StoreMisconfigured(f"{path} is a folder: point DATABASE_URL to a file in it")


_PASSING: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: the write is retried",
    sqlite3.SQLITE_LOCKED: "is locked by another process: the write is retried",
    sqlite3.SQLITE_FULL: "can't grow, its disk is full: make room",
    sqlite3.SQLITE_IOERR: "can't be read or written: check the disk and the system's log",
    sqlite3.SQLITE_NOMEM: "is out of memory",
    sqlite3.SQLITE_ERROR: "failed: if its table is gone, restart the service",
}
_LASTING: Final = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database: point DATABASE_URL to another file",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or rescue it with sqlite3's .recover",
    sqlite3.SQLITE_READONLY: "may not be written: give the service's user write access to it and its folder",
    sqlite3.SQLITE_PERM: "may not be used: give the service's user access to it and its folder",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: give the service's user access to it and its folder",
}
_UNFIT: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})


def _primary_code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def explained(error: Exception, label: str) -> StoreError:
    """Turn what SQLite says into what may pass by itself, what will not, or a record that doesn't fit."""
    code = _primary_code(error)
    if code in _UNFIT:
        return RecordUnfit(f"{label} can't hold this record: {error}")
    if code in _LASTING:
        return StoreMisconfigured(f"{label} {_LASTING[code]} ({error})")
    return StoreUnavailable(f"{label} {_PASSING.get(code, 'failed')} ({error})")
