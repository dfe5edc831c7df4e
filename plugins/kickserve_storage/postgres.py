"""Keeps predictions in Postgres."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped] # it ships no types

from kickserve import features
from kickserve.errors import StoreError, StoreUnavailable
from kickserve.ids import canonical, first_id_in, instant
from kickserve.store import LabelledPrediction
from kickserve_storage.columns import (
    COLUMNS,
    JUDGED_GROUP,
    STREAM_GROUP,
    columns_of,
    in_steps,
    latest,
    record_of,
    row_of,
    span,
    steps,
    unknown_among,
)
from kickserve_storage.postgres_months import drop, make, month_of
from kickserve_storage.postgres_server import COMMAND_TIMEOUT, CONNECTIONS, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import datetime

    from kickserve.record import RecordBatch, SetOutcome
    from kickserve.schemas import Record

_TYPES: Final = {
    "id": "uuid",
    **dict.fromkeys(("created_at", "outcome_at"), "timestamptz"),
    **dict.fromkeys(("model", "revision", "error", "shadow_model", "shadow_revision"), "text"),
    **dict.fromkeys((*features.FLAGS, "outcome"), "boolean"),
    "status_code": "integer",
}
_STEP: Final = 500  # rows a statement: 5 ms of the event loop
STREAMS: Final = CONNECTIONS // 2  # a slow reader keeps its connection, so some are left to everybody else

_NAMES: Final = ", ".join(COLUMNS)
# Nothing of a request ever becomes part of these: what is filled in here are our own column names.


@cache
def _insert(columns: tuple[str, ...]) -> str:
    """Make one statement, and so one transaction and one way to the server and back: an array a column."""
    arrays = (f"${at}::{_TYPES.get(name, 'double precision')}[]" for at, name in enumerate(columns, start=1))
    return (
        f"INSERT INTO predictions ({', '.join(columns)}) SELECT * FROM unnest({', '.join(arrays)})"  # noqa: S608 - see above
        " ON CONFLICT (id) DO NOTHING"
    )


_GET: Final = f"SELECT {_NAMES} FROM predictions WHERE id = $1"  # noqa: S608 - see above
_SPAN: Final = f"SELECT {_NAMES} FROM predictions WHERE id >= $1 AND id < $2"  # noqa: S608 - see above
_NEWEST: Final = f"{_SPAN} ORDER BY id DESC LIMIT $3"
_OLDEST: Final = f"{_SPAN} ORDER BY id"
_JUDGED: Final = """SELECT created_at, model, prediction, outcome, shadow_model, shadow_prediction
    FROM predictions
    WHERE outcome IS NOT NULL AND prediction IS NOT NULL AND id >= $1 AND id < $2
        AND ($3::text IS NULL OR model = $3) ORDER BY id"""
_OUTCOMES: Final = """UPDATE predictions SET outcome = told.outcome, outcome_at = told.at
    FROM unnest($1::uuid[], $2::boolean[], $3::timestamptz[]) AS told (id, outcome, at)
    WHERE predictions.id = told.id RETURNING predictions.id"""
_PURGE: Final = (
    "DELETE FROM predictions WHERE id IN (SELECT id FROM predictions WHERE id < $1 ORDER BY id LIMIT $2)"
)


@asynccontextmanager
async def unbroken_end() -> AsyncIterator[AsyncExitStack]:
    """Have what is opened closed in order even where the task is cancelled, and again at each await.

    So it is when a client goes away while it is read for: the transaction would never be rolled back, and its
    connection come back to the others with it.
    """
    opened = AsyncExitStack()
    try:
        yield opened
    finally:
        await asyncio.shield(opened.__aexit__(*sys.exc_info()))


def to_millisecond(moment: datetime) -> datetime:
    """Cut off what is below a millisecond, as SQLite's store does."""
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)


def values_of(record: Record) -> list[Any]:
    """Turn a record into a row of the table."""
    return row_of(record, to_millisecond)


def record_from(values: Sequence[Any]) -> Record:
    """Turn a row of the table, whose id is a UUID, into a record."""
    return record_of([str(values[0]), *values[1:]])


def _judged(row: Sequence[Any]) -> LabelledPrediction:
    return LabelledPrediction(*row)


class PostgresStore:
    """A `kickserve.store.Store` in Postgres.

    Args:
        url: `postgresql://user:password@host:5432/database`, with parameters as libpq has them.
        statement_cache: statements that a connection keeps prepared; 0 behind pgbouncer.
        command_timeout: seconds that a command may take.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(
        self, url: str, *, statement_cache: int = 100, command_timeout: float = COMMAND_TIMEOUT
    ) -> None:
        self._server = Server(url, statement_cache=statement_cache, command_timeout=command_timeout)
        self._streams = asyncio.Semaphore(STREAMS)
        self._patience = command_timeout

    @property
    def label(self) -> str:
        """The URL without password and parameters."""
        return self._server.label

    async def open(self) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        await self._server.open()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._server.close()

    async def add(self, records: Sequence[Record]) -> None:
        """Keep all of these or none; a record whose id is kept already is passed over."""
        if not records:
            return
        rows = await in_steps(records, values_of)

        async def write() -> None:
            async with self._server.connection() as connection:
                await connection.execute(_insert(COLUMNS), *zip(*rows, strict=True))

        await self._in_months(write, (record.id for record in records))

    async def add_batches(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all of these or of none: the same as `add` with their records."""

        async def write() -> None:
            async with self._server.connection() as connection, connection.transaction():
                for step in steps(batches, _STEP):
                    names, columns = columns_of(step, moment=instant, flag=bool)
                    await connection.execute(_insert(names), *columns)

        await self._in_months(write, (first_id_in(batch.millisecond) for batch in batches))

    async def _in_months(self, write: Callable[[], Awaitable[None]], ids: Iterable[str]) -> None:
        """Write; where a month that these ids are of has no partition, make it, and write again."""
        await self._server.look_ahead()
        try:
            await write()
        except StoreError as error:
            if not isinstance(error.__cause__, asyncpg.CheckViolationError):
                raise
            async with self._server.connection() as connection:
                await make(connection, map(month_of, ids))
            await write()

    async def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""
        rows = await self._rows(_GET, canonical(record_id))
        return record_from(rows[0]) if rows else None

    async def page(
        self,
        limit: int,
        *,
        before: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Record]:
        """Return at most `limit` records, newest first."""
        low, high = span(before=before, since=since, until=until)
        return await in_steps(await self._rows(_NEWEST, low, high, limit), record_from)

    async def stream(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[Record]]:
        """Yield the records that are kept when it starts, oldest first, some hundreds at a time."""
        async with self._cursor(_OLDEST, *span(since=since, until=until)) as cursor:
            while rows := await self._fetch(cursor, STREAM_GROUP):
                yield await in_steps(rows, record_from)

    async def delete(self, record_id: str) -> bool:
        """Remove one record; say whether it was there."""
        return await self._change("DELETE FROM predictions WHERE id = $1", canonical(record_id)) > 0

    async def set_outcome(self, record_id: str, *, success: bool, at: datetime) -> bool:
        """Keep what came of the kick; say whether the record is there."""
        sql = "UPDATE predictions SET outcome = $1, outcome_at = $2 WHERE id = $3"
        return await self._change(sql, success, to_millisecond(at), canonical(record_id)) > 0

    async def set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Keep what came of many kicks; return the ids under which no record is there."""
        told, known = latest(outcomes), set[str]()
        for start in range(0, len(told), _STEP):
            rows = [(each.id, each.success, to_millisecond(each.at)) for each in told[start : start + _STEP]]
            known.update(str(found) for [found] in await self._rows(_OUTCOMES, *zip(*rows, strict=True)))
        return unknown_among(outcomes, known)

    async def labelled(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[LabelledPrediction]]:
        """Yield, ten thousand at a time, the predictions whose outcome is known."""
        async with self._cursor(_JUDGED, *span(since=since, until=until), model) as cursor:
            while rows := await self._fetch(cursor, JUDGED_GROUP):
                yield await in_steps(rows, _judged)

    async def purge(self, until: datetime, limit: int) -> int:
        """Remove the oldest records made before this instant, `limit` at most; say how many."""
        return await self._change(_PURGE, span(until=until).high, limit)

    async def drop_whole(self, until: datetime) -> list[str]:
        """Drop each month that is over before this instant, whatever is in it; return their tables' names."""
        async with self._server.connection() as connection:
            return await drop(connection, span(until=until).high)

    async def count(self) -> int:
        """Return how many records are kept."""
        [(number,)] = await self._rows("SELECT count(*) FROM predictions")
        return int(number)

    async def ping(self) -> None:
        """Return when the table can be read."""
        await self._rows("SELECT id FROM predictions LIMIT 1")

    async def _rows(self, sql: str, *values: object) -> list[Any]:
        async with self._server.connection() as connection:
            return list(await connection.fetch(sql, *values))

    async def _change(self, sql: str, *values: object) -> int:
        async with self._server.connection() as connection:
            status: str = await connection.execute(sql, *values)
            return int(status.rpartition(" ")[2])  # such as "DELETE 3"

    @asynccontextmanager
    async def _cursor(self, sql: str, *values: object) -> AsyncIterator[Any]:
        """Open a cursor on the server, in a transaction that sees the table as it is now."""
        async with unbroken_end() as opened:
            await opened.enter_async_context(self._turn())
            connection = await opened.enter_async_context(self._server.connection())
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await opened.enter_async_context(transaction)
            yield await connection.cursor(sql, *values)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                await self._streams.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"{self.label}: {STREAMS} exports are under way already; try again when one has ended"
            ) from None
        try:
            yield
        finally:
            self._streams.release()

    async def _fetch(self, cursor: Any, number: int) -> list[Any]:
        with self._server.in_our_words():
            return list(await cursor.fetch(number))
