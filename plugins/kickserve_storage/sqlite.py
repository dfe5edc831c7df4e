"""Keeps predictions in a SQLite file, or in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from kickserve.ids import canonical, instant
from kickserve.store import LabelledPrediction
from kickserve_storage.columns import (
    COLUMNS,
    CREATED,
    FLAGS,
    JUDGED_GROUP,
    OUTCOME,
    OUTCOME_AT,
    SHADOW,
    STREAM_GROUP,
    USUAL,
    Table,
    after,
    columns_of,
    in_steps,
    latest,
    record_of,
    row_of,
    span,
    steps,
    to_millisecond,
    unknown_among,
)
from kickserve_storage.sqlite_database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from kickserve.record import RecordBatch, SetOutcome
    from kickserve.schemas import Record

BUSY: Final = 5.0  # seconds to wait for another process that writes

_NAMES: Final = ", ".join(COLUMNS)
# Nothing of a request ever becomes part of these: what is filled in here are our own column names.
_GET: Final = f"SELECT {_NAMES} FROM predictions WHERE id = ?"  # noqa: S608 - see above
_SPAN: Final = f"SELECT {_NAMES} FROM predictions WHERE id >= ? AND id < ?"  # noqa: S608 - see above
_NEWEST: Final = f"{_SPAN} ORDER BY id DESC LIMIT ?"
_OLDEST: Final = f"{_SPAN} ORDER BY id LIMIT ?"
_END: Final = "SELECT max(id) FROM predictions WHERE id >= ? AND id < ?"
_JUDGED: Final = """SELECT id, created_at, model, prediction, outcome, shadow_model, shadow_prediction
    FROM predictions
    WHERE outcome IS NOT NULL AND prediction IS NOT NULL AND id >= ? AND id < ? AND (?3 IS NULL OR model = ?3)
    ORDER BY id LIMIT ?4"""
_PURGE: Final = (
    "DELETE FROM predictions WHERE id IN (SELECT id FROM predictions WHERE id < ? ORDER BY id LIMIT ?)"
)


_OUTCOME: Final = "UPDATE predictions SET outcome = ?, outcome_at = ? WHERE id = ?"
_OUTCOMES: Final = 500  # a statement: SQLite before 3.32 takes 999 values at most
# Rows a statement: each statement costs as much as several rows. Before 3.32 one took 999 values at most.
_TOGETHER: Final = 64 if sqlite3.sqlite_version_info >= (3, 32) else 999 // len((*USUAL, *SHADOW))
_STEP: Final = 4 * _TOGETHER  # rows that are made ready at once: 0.2 ms of the event loop


@cache
def _insert(columns: tuple[str, ...], rows: int = 1) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO predictions ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - see above
        " ON CONFLICT (id) DO NOTHING"
    )


def _known_among(number: int) -> str:
    return f"SELECT id FROM predictions WHERE id IN ({', '.join('?' * number)})"  # noqa: S608 - see above


def values_of(record: Record) -> list[Any]:
    """Turn a record into a row of the table."""
    row = row_of(record, to_millisecond)
    # For a boolean, as for None, sqlite3 looks for an adapter each time, which costs more than to write it.
    for at in FLAGS:
        row[at] = int(row[at])
    return row


Statement = tuple[str, Sequence[Sequence[Any]]]  # and the rows of values to run it with


def _one_by_one(records: Sequence[Record]) -> Iterator[Statement]:
    for start in range(0, len(records), _STEP):
        yield _insert(COLUMNS), [values_of(record) for record in records[start : start + _STEP]]


def _statements(batches: Sequence[RecordBatch]) -> Iterator[Statement]:
    for step in steps(batches, _STEP):
        table = columns_of(step)
        if "error" in table.names:  # a rare thing: not worth a long statement of its own
            yield _insert(table.names), [*zip(*table.columns, strict=True)]
        else:
            yield from _together(table)


def _together(table: Table) -> Iterator[Statement]:
    """Yield statements for usual rows: as many as go `_TOGETHER`, and the rest one by one."""
    names, columns = table
    width, length = len(columns), len(columns[0])
    values: list[Any] = [None] * (width * length)
    for at, column in enumerate(columns):
        values[at::width] = column

    def cut(start: int, end: int, rows: int) -> list[Sequence[Any]]:
        return [values[at * width : (at + rows) * width] for at in range(start, end, rows)]

    whole = length // _TOGETHER * _TOGETHER
    for start in range(0, whole, _STEP):
        yield _insert(names, _TOGETHER), cut(start, min(start + _STEP, whole), _TOGETHER)
    yield _insert(names), cut(whole, length, 1)


def record_from(values: Sequence[Any]) -> Record:
    """Turn a row of the table, where instants are milliseconds and flags 0 and 1, into a record."""
    row = list(values)
    row[CREATED] = instant(row[CREATED])
    for at in FLAGS:
        row[at] = row[at] == 1
    if row[OUTCOME] is not None:
        row[OUTCOME] = row[OUTCOME] == 1
    if row[OUTCOME_AT] is not None:
        row[OUTCOME_AT] = instant(row[OUTCOME_AT])
    return record_of(row)


def _judged(row: Sequence[Any]) -> LabelledPrediction:
    _, created, model, prediction, outcome, *shadow = row
    return LabelledPrediction(instant(created), model, prediction, outcome == 1, *shadow)


class SqliteStore:
    """A `kickserve.store.Store` in a SQLite file or in memory.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://` for memory.
        busy: seconds to wait for another process that writes.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(self, url: str, *, busy: float = BUSY) -> None:
        self._database = Database(url, busy=busy)

    @property
    def label(self) -> str:
        """The URL, with the absolute path."""
        return self._database.label

    @property
    def shared(self) -> bool:
        """Whether other processes see the same records: not those in memory."""
        return not self._database.in_memory

    async def open(self) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        await self._database.open()

    async def close(self) -> None:
        """Let go of every connection. A database in memory is gone with it."""
        await self._database.close()

    async def add(self, records: Sequence[Record]) -> None:
        """Keep all of these or none; a record whose id is kept already is passed over."""
        if records:
            await self._database.change_all(_one_by_one(records))

    async def add_batches(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all of these or of none: the same as `add` with their records."""
        await self._database.change_all(_statements(batches))

    async def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""
        rows = await self._database.rows(_GET, (canonical(record_id),))
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
        return await in_steps(await self._database.rows(_NEWEST, (low, high, limit)), record_from)

    async def stream(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[Record]]:
        """Yield the records that are kept when it starts, oldest first, some hundreds at a time.

        Each group is a short read of its own: a long one would keep the WAL from being written back.
        """
        low, high = span(since=since, until=until)
        [(newest,)] = await self._database.rows(_END, (low, high))
        while newest and low <= newest:
            rows = await self._database.rows(_OLDEST, (low, after(newest), STREAM_GROUP))
            if not rows:
                return  # what was left has been deleted meanwhile
            yield [record_from(row) for row in rows]
            low = after(rows[-1][0])

    async def delete(self, record_id: str) -> bool:
        """Remove one record; say whether it was there."""
        return (
            await self._database.change("DELETE FROM predictions WHERE id = ?", (canonical(record_id),)) > 0
        )

    async def set_outcome(self, record_id: str, *, success: bool, at: datetime) -> bool:
        """Keep what came of the kick; say whether the record is there."""
        values = (success, to_millisecond(at), canonical(record_id))
        return await self._database.change(_OUTCOME, values) > 0

    async def set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Keep what came of many kicks; return the ids under which no record is there."""
        told, known = latest(outcomes), set[str]()
        for start in range(0, len(told), _OUTCOMES):
            values = [
                (each.success, to_millisecond(each.at), each.id) for each in told[start : start + _OUTCOMES]
            ]
            ids = [row[-1] for row in values]
            async with self._database.writing() as connection:
                await connection.executemany(_OUTCOME, values)
                known.update(*await connection.execute_fetchall(_known_among(len(ids)), ids))
        return unknown_among(outcomes, known)

    async def labelled(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[LabelledPrediction]]:
        """Yield, ten thousand at a time, the predictions whose outcome is known."""
        low, high = span(since=since, until=until)
        while rows := await self._database.rows(_JUDGED, (low, high, model, JUDGED_GROUP)):
            yield await in_steps(rows, _judged)
            low = after(rows[-1][0])

    async def purge(self, until: datetime, limit: int) -> int:
        """Remove the oldest records made before this instant, `limit` at most; say how many."""
        return await self._database.change(_PURGE, (span(until=until).high, limit))

    async def count(self) -> int:
        """Return how many records are kept."""
        [(number,)] = await self._database.rows("SELECT count(*) FROM predictions")
        return int(number)

    async def ping(self) -> None:
        """Return when the table can be read."""
        await self._database.rows("SELECT id FROM predictions LIMIT 1")
