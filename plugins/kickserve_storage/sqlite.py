"""Keeps predictions in a SQLite file in WAL mode, or in memory."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiosqlite
from aiosqlite.core import _connection_worker_thread

from kickserve.plugins import (
    BEGINNING,
    KnownOutcome,
    LabelledPrediction,
    OutcomeChanges,
    RecordUnfit,
    StoreMisconfigured,
    StoreUnavailable,
    canonical,
    instant,
    printable,
)
from kickserve_storage.changes import KEPT, SQLITE, SQLITE_CHANGES
from kickserve_storage.sqlite_file import (
    Inode,
    check_place,
    create,
    explained,
    inode_of,
    is_stale,
    is_writable,
    mark_wal,
    path_of,
    primary_code,
    read_only_uri,
)
from kickserve_storage.table import (
    CREATED,
    DELETED_IN,
    FLAG_COLUMNS,
    FORGET,
    FORGOTTEN,
    OUTCOME,
    OUTCOME_AT,
    REMOVE,
    STRIP,
    TOMBSTONES_DAYS,
    TableStore,
    columns_of,
    forgotten_of,
    hash_of,
    ids_around,
    names_in,
    record_of,
    span,
    steps,
    to_millisecond,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime
    from queue import SimpleQueue

    from kickserve.plugins import RecordBatch, SetOutcome
    from kickserve.schemas import Record

BUSY: Final = 5.0  # seconds to wait for another process that writes
READERS: Final = 2
LIMIT: Final = 30.0  # seconds
STEP_LIMIT: Final = 3_600.0  # seconds: an index over many millions of predictions takes its time
_CLOSING: Final = 2.0  # seconds that a call under way may take when the store is closed
_LOOK: Final = 1.0  # seconds between two looks whether the file was replaced
APPLICATION: Final = 0x4B49434B  # "KICK": marks a file as kickserve's
# Rows a statement, the rest in shorter ones: each costs as much as several rows. Before 3.32 at most 999
# values went in one.
_TOGETHER: Final = (64, 8, 1) if sqlite3.sqlite_version_info >= (3, 32) else (16, 1)
_STEP: Final = 512  # rows between two turns of the event loop: 0.3 ms for Python, and 1 ms for SQLite

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
    (
        "ALTER TABLE predictions ADD COLUMN kicker TEXT",
        "ALTER TABLE predictions ADD COLUMN source TEXT NOT NULL DEFAULT 'api'",
        "ALTER TABLE predictions ADD COLUMN base REAL",
        "ALTER TABLE predictions ADD COLUMN learned_level REAL",
        "ALTER TABLE predictions ADD COLUMN learned_outcomes INTEGER",
        "ALTER TABLE predictions ADD COLUMN learned_ability REAL",
        "ALTER TABLE predictions ADD COLUMN learned_from REAL",
        "ALTER TABLE predictions ADD COLUMN learned_to REAL",
        "DROP INDEX predictions_judged",
        """CREATE INDEX predictions_judged ON predictions (id, created_at, model, prediction, outcome,
            shadow_model, shadow_prediction, source, base)
            WHERE outcome IS NOT NULL AND prediction IS NOT NULL""",
        # In this order a learner hears outcomes.
        """CREATE INDEX predictions_told ON predictions (outcome_at, id) WHERE outcome_at IS NOT NULL""",
        "CREATE INDEX predictions_kicker ON predictions (kicker, id) WHERE kicker IS NOT NULL",
        f"""CREATE TABLE kickserve_forgotten (kicker TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL)
            WITHOUT ROWID{_STRICT}""",
    ),
    SQLITE,
)


def _positional(sql: str) -> str:
    """Spell the values of a statement, each used once and in order, as `?` instead of `$1`."""
    # Not as ?1: Python before 3.12.4 warns of it.
    return re.sub(r"\$\d+", "?", sql)


_REMOVE: Final = _positional(REMOVE)
_DELETED_IN: Final = _positional(DELETED_IN)
_REMEMBER: Final = "INSERT INTO kickserve_deleted (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
_EXPIRE: Final = "DELETE FROM kickserve_deleted WHERE at < ?"
_STRIP: Final = _positional(STRIP)
_FORGET: Final = _positional(FORGET)
_EXPIRE_FORGOTTEN: Final = "DELETE FROM kickserve_forgotten WHERE at < ?"
_SET_OUTCOME: Final = (
    "UPDATE predictions SET outcome = ?, outcome_at = ? WHERE id = ? AND coalesce(outcome_at, 0) <= ?"
)


_log = logging.getLogger(__name__)


@cache
def _insert(columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO predictions ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - columns
        " ON CONFLICT (id) DO NOTHING"
    )


def _add(connection: sqlite3.Connection, batches: Sequence[RecordBatch]) -> None:
    names, columns = columns_of(batches)
    count, width, start = len(columns[0]), len(columns), 0
    for size in _TOGETHER:
        while start + size <= count:
            values: list[Any] = [None] * (size * width)
            for at, column in enumerate(columns):
                values[at::width] = column[start : start + size]
            connection.execute(_insert(names, size), values)
            start += size


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
        super().__init__(limit)
        self.path = path_of(url)
        self.shared = self.path is not None
        self._busy = busy
        self._read_only = False
        self._connections: _Connections | None = None
        self._look_at = 0.0  # when to see next whether the file is still the same

    @property
    def label(self) -> str:
        """The URL, with the absolute path."""
        return "sqlite:///:memory:" if self.path is None else f"sqlite:///{printable(self.path)}"

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        self._wanted = True
        self._read_only = read_only and self.path is not None and not is_writable(self.path)
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
            for step in steps(batches, _STEP):
                # The thread makes the rows as well: each call is a way to it and back.
                await connection._execute(_add, connection._conn, step)  # type: ignore[no-untyped-call] # noqa: SLF001
            if batches and (gone := await connection.execute_fetchall(_DELETED_IN, ids_around(batches))):
                await connection.executemany(_REMOVE, gone)
            if named := names_in(batches):
                found = await connection.execute_fetchall(FORGOTTEN)
                forgotten = forgotten_of(named, ((each, instant(at)) for each, at in found))
                await connection.executemany(_STRIP, forgotten)

    async def delete(self, record_id: str) -> bool:
        """Remove one record, and keep its id from coming back; say whether it was there."""
        now = time.time_ns() // 1_000_000
        async with self._using(write=True) as connection, _transaction(connection):
            cursor = await connection.execute(_REMOVE, [canonical(record_id)])
            await cursor.close()
            if cursor.rowcount:
                await connection.execute(_EXPIRE, [now - TOMBSTONES_DAYS * 86_400_000])
                await connection.execute(_REMEMBER, [canonical(record_id), now])
        return cursor.rowcount > 0

    async def forget(self, kicker: str, at: datetime) -> int:
        """Take a label off all records made before an instant, and keep it from coming back."""
        now = time.time_ns() // 1_000_000
        async with self._using(write=True) as connection, _transaction(connection):
            cursor = await connection.execute(_STRIP, [kicker, span(until=at).high])
            await cursor.close()
            await connection.execute(_EXPIRE_FORGOTTEN, [now - TOMBSTONES_DAYS * 86_400_000])
            await connection.execute(_FORGET, [hash_of(kicker), to_millisecond(at)])
        return cursor.rowcount

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
            rows = [
                (each.success, None if each.success is None else at, each.id, at)
                for each, at in zip(outcomes, moments, strict=True)
            ]
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

    @staticmethod
    def _known_outcome(row: Sequence[Any]) -> KnownOutcome:
        at, _, revision, base, kicker, outcome, *others = row
        return KnownOutcome(instant(at), revision, base, kicker, outcome == 1, *others)

    @staticmethod
    def _moment(at: datetime) -> int:
        return to_millisecond(at)

    async def outcome_changes(self, mark: object = None) -> OutcomeChanges:
        """Return since when outcomes have changed; all have where the file is another one."""
        file, number = mark if isinstance(mark, tuple) else (None, -1)
        [(newest, first)] = await self._rows(SQLITE_CHANGES, number)
        now = (self._connections and self._connections.file, newest or 0)
        if number < 0 or file != now[0] or not 0 <= now[1] - number <= KEPT:
            return OutcomeChanges(now, BEGINNING)
        return OutcomeChanges(now, None if first is None else instant(first))

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
            async with self._turn_to_connect():
                if (old := self._connections) is not None and self._is_replaced(old):
                    self._connections = None
                    # By its inode: another process may have taken up the new file, with a WAL of its own.
                    if self.path is not None and inode_of(f"{self.path}-wal") == old.wal:
                        self._set_wal_aside(self.path)
                    await _close(old)
                if self._connections is None:
                    with self._in_our_words():
                        connections = await self._connect()
                    if not self._wanted:  # it was closed meanwhile
                        await _close(connections)
                    self._expect_open()
                    self._connections = connections
                return self._connections
        return self._connections

    def _is_due(self) -> bool:
        """Return, once a second at most, that it is time to look at the file."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK
        return True

    def _is_replaced(self, connections: _Connections) -> bool:
        with suppress(OSError):
            return self.path is not None and inode_of(self.path) != connections.file
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
            check_place(self.path)
            where, readers = read_only_uri(self.path) if self._read_only else str(self.path), READERS
            if not self._read_only:
                create(self.path)
                if is_stale(self.path):
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
        inodes = (None, None) if self.path is None else mark_wal(self.path)
        return _Connections(every, every[0], itertools.cycle(every[1:] or every), *inodes)

    async def _start(self, where: str) -> aiosqlite.Connection:
        # No implicit transactions: where one is needed, it is begun by name.
        connection = aiosqlite.connect(where, timeout=self._busy, isolation_level=None, uri=self._read_only)
        # A daemon: a disk that hangs must not keep the process from ending.
        connection._thread = Thread(target=_work, args=(connection._tx,), daemon=True)  # noqa: SLF001
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
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
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


def _work(calls: SimpleQueue[Any]) -> None:
    """Carry out the calls of a connection up to its closing, also where the event loop has ended before.

    Then nobody waits for the results, and aiosqlite's thread would die of the first, with the file open.
    """
    ended = False
    while not ended:
        try:
            _connection_worker_thread(calls)
            ended = True
        except RuntimeError:  # the event loop is closed
            ended = calls.empty()


async def _stop(connections: Sequence[_Connection]) -> None:
    """Close connections one by one: the last writes the WAL back, and of two at once neither is the last."""
    now = asyncio.get_running_loop().time
    end = now() + _CLOSING
    for each in reversed(connections):
        if (closed := each.connection.stop()) is not None:
            await asyncio.wait([closed], timeout=max(0.0, end - now()))
