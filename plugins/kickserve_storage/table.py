"""The table of predictions, in both databases: its columns, its statements, and the calls that they share."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from abc import abstractmethod
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from kickserve.features import COUNT, FLAGS, NAMES
from kickserve.plugins import (
    ALL,
    BEGINNING,
    LEARNED_WIDTH,
    NOTHING_LEARNED,
    NUMBER,
    KnownOutcome,
    LabelledPrediction,
    Store,
    StoreUnavailable,
    canonical,
    decode_learned,
    first_id_at,
    first_id_in,
    numbers_of,
)
from kickserve.schemas import LEARNED_COLUMNS, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Order, RecordBatch, Selection, SetOutcome

FIELDS: Final = Record.__struct_fields__
INTERVAL: Final = FIELDS.index("interval")
# `learned` is the last field. The name in it is in the column `kicker` alone: so it can be forgotten.
COLUMNS: Final = (
    *(*FIELDS[:INTERVAL], "interval_low", "interval_high", *FIELDS[INTERVAL + 1 : -1]),
    *LEARNED_COLUMNS,
)
KICKER: Final = COLUMNS.index("kicker")
CREATED: Final = COLUMNS.index("created_at")
OUTCOME: Final = COLUMNS.index("outcome")
OUTCOME_AT: Final = COLUMNS.index("outcome_at")
_FLAGS_FROM: Final = NAMES.index(FLAGS[0])  # they are the last features
FLAG_COLUMNS: Final = tuple(COLUMNS.index(name) for name in FLAGS)
USUAL: Final = COLUMNS[: COLUMNS.index("error")]
"""The columns that a new prediction fills; the others are nearly always null."""
SHADOW: Final = ("shadow_model", "shadow_revision", "shadow_prediction")

STREAM_GROUP: Final = 250  # records a group: 1 ms of the event loop, and another to encode them
KNOWN_GROUP: Final = 5_000  # outcomes a read: all are learned again where the oldest of them is corrected
LABELLED_GROUP: Final = 10_000  # labelled predictions are a few values each, so more of them go in a group
OUTCOMES_GROUP: Final = 500  # outcomes a statement: SQLite before 3.32 takes 999 values; and those of a turn

# Values are $1, $2, …; nothing of a request ever becomes part of a statement, only names of columns do.
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM predictions"  # noqa: S608 - see above
_GET: Final = f"{_SELECT} WHERE id = $1"
_WITHIN: Final = f"{_SELECT} WHERE id >= $1 AND id < $2"
_OLDEST: Final = f"{_WITHIN} ORDER BY id LIMIT $3"
_NEWEST: Final = f"{_WITHIN} ORDER BY id DESC LIMIT $3"
_OLDEST_OF: Final = f"{_WITHIN} AND kicker = $3 ORDER BY id LIMIT $4"
_NEWEST_OF: Final = f"{_WITHIN} AND kicker = $3 ORDER BY id DESC LIMIT $4"
KNOWN_OUTCOMES: Final = """SELECT
        outcome_at, id, revision, coalesce(base, prediction), kicker, outcome, prediction, source
    FROM predictions WHERE outcome_at IS NOT NULL AND (outcome_at, id) > ($1, $2) AND prediction IS NOT NULL
    AND revision = coalesce($3, revision) ORDER BY outcome_at, id LIMIT $4"""
LABELLED: Final = """SELECT
        created_at, model, prediction, outcome, shadow_model, shadow_prediction, source, base, id
    FROM predictions WHERE outcome IS NOT NULL AND prediction IS NOT NULL AND id >= $1 AND id < $2
    AND model = coalesce($3, model) ORDER BY id LIMIT $4"""
_OUTCOMES: Final = {"open": "outcome IS NULL", "scored": "outcome IS TRUE", "missed": "outcome IS FALSE"}
_ORDERS: Final[Mapping[Order, str]] = {
    "newest": "id DESC",
    "oldest": "id",
    "likeliest": "coalesce(prediction, -1) DESC, id DESC",
    "unlikeliest": "coalesce(prediction, 2), id DESC",
    "furthest": "distance DESC, id DESC",
}
_MOST: Final = (1 << 63) - 1
_IS_DELETED: Final = "SELECT id FROM kickserve_deleted WHERE id = $1"
DELETED_IN: Final = "SELECT id FROM kickserve_deleted WHERE id >= $1 AND id < $2"
REMOVE: Final = "DELETE FROM predictions WHERE id = $1"
STRIP: Final = "UPDATE predictions SET kicker = NULL WHERE kicker = $1 AND id < $2"
FORGOTTEN: Final = "SELECT kicker, at FROM kickserve_forgotten"
FORGET: Final = """INSERT INTO kickserve_forgotten (kicker, at) VALUES ($1, $2)
    ON CONFLICT (kicker) DO UPDATE SET at = excluded.at WHERE kickserve_forgotten.at < excluded.at"""
_PURGE: Final = (
    "DELETE FROM predictions WHERE id IN (SELECT id FROM predictions WHERE id < $1 ORDER BY id LIMIT $2)"
)

TOMBSTONES_DAYS: Final = 30
"""Days for which the id of a deleted record is remembered, and for which a journal may so wait."""

_BATCH_COST: Final = 8  # of a batch, in rows: its cost beside its rows
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = str(uuid.UUID(int=0))
_LAST: Final = str(uuid.UUID(int=(1 << 128) - 1))


class TableStore(Store):
    """The calls of a `kickserve.plugins.Store` that are the same statement in both databases.

    Args:
        limit: seconds that a call may take, and for which one may wait for its turn.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._wanted = False  # whether it has been opened, and not closed since
        self._opening = asyncio.Lock()

    @abstractmethod
    async def _rows(self, sql: str, *values: object) -> list[Any]:
        """Read all rows that a statement finds."""

    @abstractmethod
    async def _change(self, sql: str, *values: object) -> int:
        """Change rows by one statement; return how many."""

    @abstractmethod
    async def _set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Set some hundreds of outcomes, one a record; return the ids of the records that are there."""

    @staticmethod
    @abstractmethod
    def _record(row: Sequence[Any]) -> Record:
        """Turn a row of `COLUMNS` into a record."""

    @staticmethod
    @abstractmethod
    def _labelled(row: Sequence[Any]) -> LabelledPrediction:
        """Turn a row of `LABELLED` into a labelled prediction."""

    @staticmethod
    @abstractmethod
    def _known_outcome(row: Sequence[Any]) -> KnownOutcome:
        """Turn a row of `KNOWN_OUTCOMES` into an outcome."""

    @staticmethod
    @abstractmethod
    def _moment(at: datetime) -> Any:
        """Turn an instant into what the database keeps."""

    @asynccontextmanager
    async def _turn_to_connect(self) -> AsyncIterator[None]:
        """Wait until no other call connects, but not for ever."""
        try:
            async with asyncio.timeout(self._limit):
                await self._opening.acquire()
        except TimeoutError:
            raise StoreUnavailable(f"{self.label} is still being connected to: try again later") from None
        try:
            self._expect_open()
            yield
        finally:
            self._opening.release()

    def _expect_open(self) -> None:
        if not self._wanted:
            raise StoreUnavailable(f"{self.label} is not open: call open() first")

    async def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""
        rows = await self._rows(_GET, canonical(record_id))
        return self._record(rows[0]) if rows else None

    async def page(
        self,
        limit: int,
        *,
        before: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kicker: str | None = None,
    ) -> list[Record]:
        """Return at most `limit` records, newest first."""
        low, high = span(before=before, since=since, until=until)
        of = () if kicker is None else (kicker,)
        rows = await self._rows(_NEWEST_OF if of else _NEWEST, low, high, *of, limit)
        return await in_steps(rows, self._record)

    async def stream(
        self, *, since: datetime | None = None, until: datetime | None = None, kicker: str | None = None
    ) -> AsyncIterator[list[Record]]:
        """Yield the records up to the newest one at the start, oldest first, some hundreds at a time.

        Each group is a short read of its own: a long one would keep SQLite from emptying its WAL and Postgres
        from removing old rows, and a slow reader would hold a connection.
        """
        low, high = span(since=since, until=until)
        of = () if kicker is None else (kicker,)
        if newest := await self._rows(_NEWEST, low, high, 1):
            high = _after(newest[0][0])
        while rows := await self._rows(_OLDEST_OF if of else _OLDEST, low, high, *of, STREAM_GROUP):
            yield [self._record(row) for row in rows]
            low = _after(rows[-1][0])

    async def labelled(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[LabelledPrediction]]:
        """Yield, ten thousand at a time, the predictions whose outcome is known."""
        low, high = span(since=since, until=until)
        while rows := await self._rows(LABELLED, low, high, model, LABELLED_GROUP):
            yield await in_steps(rows, self._labelled)
            low = _after(rows[-1][-1])

    async def known_outcomes(
        self, *, since: datetime = BEGINNING, revision: str | None = None
    ) -> AsyncIterator[list[KnownOutcome]]:
        """Yield, some hundreds at a time, outcomes in the order in which they became known."""
        at, record_id = self._moment(since), _FIRST
        while rows := await self._rows(KNOWN_OUTCOMES, at, record_id, revision, KNOWN_GROUP):
            # Converted as they are wanted: whoever takes them in lets others have their turn in between.
            for start in range(0, len(rows), OUTCOMES_GROUP):
                yield [*map(self._known_outcome, rows[start : start + OUTCOMES_GROUP])]
            at, record_id = rows[-1][0], str(rows[-1][1])

    async def was_deleted(self, record_id: str) -> bool:
        """Return whether a record with this id was deleted in the last 30 days."""
        return bool(await self._rows(_IS_DELETED, canonical(record_id)))

    async def set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Keep the outcomes of many kicks; return the ids under which no record is there."""
        newest, known = _latest(outcomes), set[str]()
        for start in range(0, len(newest), OUTCOMES_GROUP):
            known |= await self._set_outcomes(newest[start : start + OUTCOMES_GROUP])
        return {each.id for each in outcomes if canonical(each.id) not in known}

    async def purge(self, until: datetime, limit: int) -> int:
        """Remove the oldest records made before this instant, `limit` at most; say how many."""
        return await self._change(_PURGE, span(until=until).high, limit)

    async def search(
        self, wanted: Selection, limit: int, *, offset: int = 0, order: Order = "newest"
    ) -> list[Record]:
        """Return some of the records that are sought, in an order."""
        where, values = _where(wanted)
        place = f"LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}"
        sql = f"{_SELECT} WHERE {where} ORDER BY {_ORDERS[order]} {place}"  # only our own words in it
        return await in_steps(await self._rows(sql, *values, limit, offset), self._record)

    async def count(self, wanted: Selection = ALL, most: int | None = None) -> int:
        """Return how many records are kept, or are sought; at most `most`."""
        if wanted == ALL and most is None:
            [(number,)] = await self._rows("SELECT count(*) FROM predictions")
        else:
            where, values = _where(wanted)
            some = f"SELECT id FROM predictions WHERE {where} LIMIT ${len(values) + 1}"  # noqa: S608 - as above
            limit = _MOST if most is None else most
            [(number,)] = await self._rows(f"SELECT count(*) FROM ({some}) AS sought", *values, limit)  # noqa: S608
        return int(number)

    async def ping(self) -> None:
        """Return when the table can be read."""
        await self._rows("SELECT id FROM predictions LIMIT 1")


def _where(wanted: Selection) -> tuple[str, list[object]]:
    """Return the condition for records that are sought, and its values."""
    low, high = span(since=wanted.since, until=wanted.until)
    if wanted.newest is not None:
        high = min(high, _after(wanted.newest))
    if wanted.after is not None:
        low = max(low, _after(wanted.after))
    values: list[object] = [low, high]
    conditions = ["id >= $1", "id < $2"]
    if wanted.outcome is not None:
        conditions.append(_OUTCOMES[wanted.outcome])
    for name in ("kicker", "source"):
        if (value := getattr(wanted, name)) is not None:
            values.append(value)
            conditions.append(f"{name} = ${len(values)}")
    return " AND ".join(conditions), values


class Span(NamedTuple):
    """A range of ids, `low <= id < high`: each search is one walk along the primary key."""

    low: str
    high: str


def span(*, before: str | None = None, since: datetime | None = None, until: datetime | None = None) -> Span:
    """Turn the bounds of a search into a range of ids.

    Args:
        before: an id, itself left out.
        since: from this instant on.
        until: up to this instant, itself left out.
    """
    low = first_id_at(since) if since else _FIRST
    high = first_id_at(until) if until else _LAST
    return Span(low, min(high, before) if before else high)


def _after(record_id: object) -> str:
    """Return the smallest id that is greater: where the next group of a stream starts."""
    return str(uuid.UUID(int=uuid.UUID(str(record_id)).int + 1))


def ids_around(batches: Sequence[RecordBatch]) -> Span:
    """Return the range of ids from the first millisecond of these batches to the end of the last."""
    moments = [batch.millisecond for batch in batches]
    return Span(first_id_in(min(moments)), first_id_in(max(moments) + 1))


def to_millisecond(moment: datetime) -> int:
    """Turn an instant into whole milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _latest(outcomes: Iterable[SetOutcome]) -> list[SetOutcome]:
    """Return the newest outcome of each kick, with the id as it is stored; texts that are no id are left out.

    In the order of their ids, so that two writers of the same kicks never wait for each other in a ring.
    """
    in_time = sorted(outcomes, key=lambda each: each.at)
    last = {record_id: each for each in in_time if (record_id := canonical(each.id)) is not None}
    return [replace(last[record_id], id=record_id) for record_id in sorted(last)]


def record_of(row: list[Any]) -> Record:
    """Turn the values of `COLUMNS` into a record; the list is used up by it."""
    learned = row[-len(LEARNED_COLUMNS) :]
    row[-len(LEARNED_COLUMNS) :] = [None if learned[0] is None else decode_learned(row[KICKER], *learned)]
    low, high = row[INTERVAL : INTERVAL + 2]
    row[INTERVAL : INTERVAL + 2] = [None if low is None else (low, high)]
    return Record(**dict(zip(FIELDS, row, strict=True)))


class Table(NamedTuple):
    """Rows for the table, column by column.

    Attributes:
        names: of the columns.
        columns: their values, each of the same length.
    """

    names: tuple[str, ...]
    columns: list[list[Any]]


def columns_of(
    batches: Sequence[RecordBatch],
    *,
    moment: Callable[[int], object] = int,
    flag: type[int] = int,
) -> Table:
    """Turn predictions as the journal keeps them into columns.

    Args:
        batches: one at least.
        moment: turns milliseconds since 1970 into the value that the database keeps.
        flag: the type in which it keeps a flag, `int` or `bool`.

    Returns:
        Those of `USUAL`; `error`, where the model failed for one of these; those of `SHADOW`, where a second
        one was asked; `source`, `kicker`, `base` and `LEARNED_COLUMNS`, where there is any.
    """
    # Few calls of numpy: each costs as much as ten rows.
    numbers = numbers_of(batches)
    probability, low, high = numbers[:, COUNT : COUNT + 3].T
    lengths = [len(batch) for batch in batches]

    def repeated(values: Iterable[Any]) -> list[Any]:
        return [*chain.from_iterable(map(repeat, values, lengths))]

    columns = [
        [text for batch in batches for text in batch.ids.texts()],
        repeated(moment(batch.millisecond) for batch in batches),
        *numbers[:, :_FLAGS_FROM].T.tolist(),
        *numbers[:, _FLAGS_FROM:COUNT].T.astype(flag).tolist(),
        *_with_nulls(np.stack([probability, np.maximum(probability, 1 - probability), low, high])),
        repeated(_storable(batch.model) for batch in batches),
        repeated(_storable(batch.revision) for batch in batches),
        numbers[:, -1].tolist(),
        repeated(batch.cpu_percent for batch in batches),
        repeated(batch.memory_mb for batch in batches),
        repeated(batch.status_code for batch in batches),
    ]
    names = USUAL
    if any(batch.error is not None for batch in batches):
        names += ("error",)
        columns.append(repeated(_storable(batch.error) for batch in batches))
    if any(batch.shadow is not None for batch in batches):
        names += SHADOW
        columns += map(list, zip(*chain.from_iterable(map(_shadow_rows, batches)), strict=True))
    if any(batch.source != "api" for batch in batches):
        names += ("source",)
        columns.append(repeated(batch.source for batch in batches))
    if any(batch.kickers for batch in batches):
        names += ("kicker",)
        columns.append(
            [_storable(each) for batch in batches for each in batch.kickers or [None] * len(batch)]
        )
    if any(batch.learned for batch in batches):
        learned = b"".join(batch.learned or NOTHING_LEARNED.numbers * len(batch) for batch in batches)
        values = np.frombuffer(learned, NUMBER).reshape(-1, LEARNED_WIDTH).T
        names += ("base", LEARNED_COLUMNS[0])
        if np.isnan(values[2]).all():  # no kicker is known
            columns += _with_nulls(values[:2])
        else:
            names += LEARNED_COLUMNS[1:]
            base, level, outcomes, *ability = _with_nulls(values)
            columns += [base, level, [each if each is None else int(each) for each in outcomes], *ability]
    return Table(names, columns)


def names_in(batches: Iterable[RecordBatch]) -> set[str]:
    """Return the labels of the kickers of these predictions."""
    return {each for batch in batches for each in batch.kickers or () if each is not None}


def forgotten_of(named: Iterable[str], rows: Iterable[tuple[str, datetime]]) -> list[tuple[str, str]]:
    """Return the values of `STRIP` for forgotten labels.

    Args:
        named: labels.
        rows: of `FORGOTTEN`.
    """
    forgotten = dict(rows)
    due = ((each, forgotten.get(hash_of(each))) for each in named)
    return [(each, span(until=at).high) for each, at in due if at is not None]


def hash_of(kicker: str) -> str:
    """Return the hash under which a forgotten label is remembered."""
    return hashlib.sha256(kicker.encode()).hexdigest()


def _shadow_rows(batch: RecordBatch) -> Iterable[tuple[str | None, str | None, float | None]]:
    shadow = batch.shadow
    if shadow is None:
        return repeat((None, None, None), len(batch))
    texts = _storable(shadow.model), _storable(shadow.revision)
    return ((*texts, probability) for probability in shadow.probability.tolist())


def _with_nulls(columns: NDArray[np.float64]) -> list[list[float | None]]:
    """Turn columns of numbers, shape (columns, n), into values of a database: NaN into null."""
    values: list[list[float | None]] = columns.tolist()
    if np.isnan(columns).any():
        return [[None if each != each else each for each in column] for column in values]  # noqa: PLR0124  NaN
    return values


def _storable(text: str | None) -> str | None:
    """Replace characters that a database can't hold, so that an odd text can't block the records behind it.

    These are U+0000 (Postgres) and surrogates without their pair (both).
    """
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def steps(batches: Iterable[RecordBatch], rows: int) -> Iterator[list[RecordBatch]]:
    """Put batches together, and cut them, into steps of so many rows.

    The last has fewer, and so has one of many small batches: a batch costs as much as eight rows.
    """
    step: list[RecordBatch] = []
    room = rows
    for batch in batches:
        rest = batch
        while len(rest) >= room:
            yield [*step, rest.part(0, room)]
            rest, step, room = rest.part(room, len(rest)), [], rows
        if len(rest):
            step.append(rest)
            room -= len(rest)
        if len(step) == rows // _BATCH_COST:
            yield step
            step, room = [], rows
    if step:
        yield step


async def in_steps(rows: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """Convert rows some hundreds at a time, each in a turn of its own on the event loop."""
    converted: list[Any] = []
    for start in range(0, len(rows), STREAM_GROUP):
        if start:
            await asyncio.sleep(0)
        converted += map(convert, rows[start : start + STREAM_GROUP])
    return converted
