"""Connections to a SQLite database: how they are opened, brought up to date, shared and healed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import aiosqlite

from kickserve.errors import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

READERS: Final = 2
APPLICATION: Final = 0x4B49434B  # "KICK": tells our file from one of another program

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
        # All that quality needs stands in this index; a prediction enters it when its outcome is told.
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
)

_log = logging.getLogger(__name__)


def path_of(url: str) -> Path | None:
    """Read the path out of a URL such as `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Returns:
        The absolute path, or None for a database in memory.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreMisconfigured(f"DATABASE_URL={url} can't be understood: {error}") from error
    if parts.netloc:
        raise StoreMisconfigured(
            f"DATABASE_URL={url} needs three slashes before a relative path (sqlite:///kickserve.db),"
            " and four before an absolute one"
        )
    if parts.query or parts.fragment:
        raise StoreMisconfigured(
            f"DATABASE_URL={url}: a SQLite URL takes no parameters."
            " Take out what follows '?' or '#', or write these as %3F and %23 in a file's name"
        )
    name = unquote(parts.path).removeprefix("/")
    return None if name in ("", ":memory:") else Path(name).absolute()


class _Link:
    """A connection (a thread of its own), and the lock that keeps its transactions apart."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.lock = asyncio.Lock()
        self.closed = False

    async def close(self) -> None:
        async with self.lock:
            self.closed = True
            await self.connection.close()


class _Links:
    """The connections to one database: one that writes, and those that read in turns."""

    def __init__(self, writer: _Link, readers: list[_Link], inode: tuple[int, int] | None) -> None:
        self.writer = writer
        self.inode = inode
        self._all = [writer, *(each for each in readers if each is not writer)]
        self._turns = itertools.cycle(readers)

    def reader(self) -> _Link:
        return next(self._turns)

    async def close(self) -> None:
        for link in self._all:
            await link.close()


class Database:
    """A SQLite file in WAL mode, or a database in memory, and the connections to it.

    One connection writes, others read meanwhile, and neither waits for the other. A file that is removed
    or replaced under the running service is opened anew.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://` for memory.
        busy: seconds to wait for another process that writes.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(self, url: str, *, busy: float) -> None:
        self._path = path_of(url)
        self._busy = busy
        self._wanted = False
        self._links: _Links | None = None
        self._opening = asyncio.Lock()

    @property
    def label(self) -> str:
        """The URL, with the absolute path."""
        return "sqlite:///:memory:" if self._path is None else f"sqlite:///{self._path}"

    @property
    def in_memory(self) -> bool:
        """Whether it goes with the process."""
        return self._path is None

    async def open(self) -> None:
        """Connect, and bring the schema up to date."""
        self._wanted = True
        await self._connected()

    async def close(self) -> None:
        """Let go of every connection."""
        self._wanted = False
        async with self._opening:
            await self._let_go()

    async def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Read, and return all that was found."""
        async with self._using((await self._connected()).reader()) as connection:
            return list(await connection.execute_fetchall(sql, values))

    async def change(self, sql: str, values: tuple[object, ...]) -> int:
        """Change rows by one statement, and say how many."""
        async with self._using((await self._connected()).writer) as connection:
            cursor = await connection.execute(sql, values)
            await cursor.close()
            return cursor.rowcount

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[aiosqlite.Connection]:
        """Give the connection that writes, in a transaction: all that is done with it, or nothing."""
        async with self._using((await self._connected()).writer) as connection, _transaction(connection):
            yield connection

    async def change_all(self, statements: Iterable[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        """Run statements, each with many rows of values, all or none; others get their turn between them."""
        async with self.writing() as connection:
            for sql, rows in statements:
                if rows:
                    await connection.executemany(sql, rows)

    @asynccontextmanager
    async def _using(self, link: _Link) -> AsyncIterator[aiosqlite.Connection]:
        async with link.lock:
            if link.closed:
                raise StoreUnavailable(f"{self.label} was closed meanwhile: try again")
            with self._in_our_words():
                yield link.connection

    async def _connected(self) -> _Links:
        """Return the connections; connect where there are none, or the file is no longer the same."""
        if self._links is not None and not self._moved(self._links):
            return self._links
        async with self._opening:
            if not self._wanted:
                raise StoreUnavailable(f"{self.label} is not open: call open() first")
            if self._links is not None and self._moved(self._links):
                _log.warning("%s was removed or replaced: opening it anew", self.label)
                await self._let_go()
            if self._links is None:
                with self._in_our_words():
                    self._links = await self._connect()
            return self._links

    def _moved(self, links: _Links) -> bool:
        """Say whether the path leads to another file than the one that is open, or to none.

        SQLite would go on writing to the file that nobody can find again.
        """
        return links.inode != _inode(self._path)

    async def _let_go(self) -> None:
        links, self._links = self._links, None
        if links is not None:
            with self._in_our_words():
                await links.close()

    async def _connect(self) -> _Links:
        if self._path is not None:
            _check_place(self._path)
        links: list[_Link] = []
        try:
            links.append(await self._link())
            await self._prepare(links[0].connection)
            if self._path is not None:
                links += [await self._link() for _ in range(READERS)]
        except BaseException:
            for link in links:
                await link.close()
            raise
        return _Links(links[0], links[1:] or links, _inode(self._path))

    async def _link(self) -> _Link:
        database = ":memory:" if self._path is None else self._path
        # No implicit transactions: where one is needed, it is begun by name.
        return _Link(await aiosqlite.connect(database, timeout=self._busy, isolation_level=None))

    async def _prepare(self, connection: aiosqlite.Connection) -> None:
        if self._path is not None:
            await self._switch_to_wal(connection)
            # With WAL this keeps the file whole through a loss of power; the last commits may be missing.
            await connection.execute("PRAGMA synchronous = NORMAL")
            await connection.execute("PRAGMA journal_size_limit = 67108864")
        await self._migrate(connection)

    async def _switch_to_wal(self, connection: aiosqlite.Connection) -> None:
        """Switch to WAL, which stands in the file and so is done once.

        Two processes that do it at the same time don't wait for each other as they do elsewhere: SQLite
        sees a deadlock coming and tells one at once that the file is locked. So it asks again.
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
        if await self._version(connection) == len(MIGRATIONS):
            return
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
            raise _explained(error, self.label) from error
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
        with suppress(sqlite3.Error):  # what failed may have ended the transaction already
            await connection.execute("ROLLBACK")
        raise


def _inode(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another that takes its name; None where there is no file."""
    if path is None:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - 1 µs instead of 3, before every call
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_place(path: Path) -> None:
    """Say what is wrong with the place of a file in words that SQLite doesn't have."""
    if not path.parent.is_dir():
        raise StoreMisconfigured(
            f"there is no folder {path.parent} for {path.name}: make it, or point DATABASE_URL elsewhere"
        )
    if path.is_dir():
        raise StoreMisconfigured(f"{path} is a folder: point DATABASE_URL to a file in it")


_PASSING: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: it is tried again",
    sqlite3.SQLITE_LOCKED: "is locked by another process: it is tried again",
    sqlite3.SQLITE_FULL: "can't grow, its disk is full: make room",
    sqlite3.SQLITE_IOERR: "can't be read or written: look at its disk and the system's log",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
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


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _explained(error: sqlite3.Error, label: str) -> StoreError:
    """Turn what SQLite says into what may pass by itself, what will not, or a record that doesn't fit."""
    code = _primary_code(error)
    if code in _UNFIT:
        return RecordUnfit(f"{label} can't hold this record: {error}")
    if code in _LASTING:
        return StoreMisconfigured(f"{label} {_LASTING[code]} ({error})")
    return StoreUnavailable(f"{label} {_PASSING.get(code, 'failed')} ({error})")
