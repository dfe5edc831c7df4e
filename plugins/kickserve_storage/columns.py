"""What both stores share: the table's columns, how a record becomes a row and back, and ranges of ids."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from msgspec.structs import astuple, replace

from kickserve import features
from kickserve.features import COUNT
from kickserve.ids import canonical, first_id_at
from kickserve.record import numbers_of
from kickserve.schemas import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from kickserve.record import RecordBatch, SetOutcome

FIELDS: Final = Record.__struct_fields__
INTERVAL: Final = FIELDS.index("interval")
COLUMNS: Final = (*FIELDS[:INTERVAL], "interval_low", "interval_high", *FIELDS[INTERVAL + 1 :])
CREATED: Final = COLUMNS.index("created_at")
OUTCOME: Final = COLUMNS.index("outcome")
OUTCOME_AT: Final = COLUMNS.index("outcome_at")
FLAGS: Final = tuple(COLUMNS.index(name) for name in features.FLAGS)
USUAL: Final = COLUMNS[: COLUMNS.index("error")]
"""The columns that a new prediction fills; the others are nearly always null."""
SHADOW: Final = ("shadow_model", "shadow_revision", "shadow_prediction")
TEXTS: Final = tuple(COLUMNS.index(name) for name in ("model", "revision", "error", *SHADOW[:2]))

STREAM_GROUP: Final = (
    250  # records that a stream yields at once: 1 ms of the event loop, and another to encode them
)
JUDGED_GROUP: Final = 10_000  # judged predictions are four values each, so more of them go in a group

_TOLL: Final = 3  # of a batch, in rows: what it costs beside its rows
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST: Final = str(uuid.UUID(int=0))
_LAST: Final = str(uuid.UUID(int=(1 << 128) - 1))


class Table(NamedTuple):
    """Rows for the table, column by column.

    Attributes:
        names: of the columns.
        columns: their values, each of the same length.
    """

    names: tuple[str, ...]
    columns: list[list[Any]]


class Span(NamedTuple):
    """A range of ids, `low <= id < high`: whatever is asked for, it is one walk along the primary key."""

    low: str
    high: str


def span(*, before: str | None = None, since: datetime | None = None, until: datetime | None = None) -> Span:
    """Turn what a reader asks for into a range of ids.

    Args:
        before: an id, itself left out.
        since: from this instant on.
        until: up to this instant, itself left out.
    """
    low = first_id_at(since) if since else _FIRST
    high = first_id_at(until) if until else _LAST
    return Span(low, min(high, before) if before else high)


def after(record_id: str) -> str:
    """Return the smallest id that is greater: where the next group of a stream starts."""
    return str(uuid.UUID(int=uuid.UUID(record_id).int + 1))


def to_millisecond(moment: datetime) -> int:
    """Turn an instant into milliseconds since 1970, what is below a millisecond cut off."""
    return (moment - _EPOCH) // _MILLISECOND


def row_of(record: Record, instant: Callable[[datetime], object]) -> list[Any]:
    """Turn a record into the values of `COLUMNS`.

    Args:
        record: what is to be kept.
        instant: turns a datetime into what the database keeps.
    """
    row = list(astuple(record))
    row[INTERVAL : INTERVAL + 1] = record.interval or (None, None)
    row[CREATED] = instant(record.created_at)
    if record.outcome_at is not None:
        row[OUTCOME_AT] = instant(record.outcome_at)
    for at in TEXTS:
        if row[at] is not None:
            row[at] = storable(row[at])
    return row


def steps(batches: Sequence[RecordBatch], rows: int) -> Iterator[list[RecordBatch]]:
    """Put batches together so that it takes about equally long to make rows of each step.

    Args:
        batches: in order.
        rows: how many a step has, about; one large batch is a step of its own.
    """
    step: list[RecordBatch] = []
    cost = 0
    for batch in batches:
        step.append(batch)
        cost += _TOLL + len(batch)
        if cost >= rows:
            yield step
            step, cost = [], 0
    if step:
        yield step


def columns_of(
    batches: Sequence[RecordBatch],
    *,
    moment: Callable[[int], object] = int,
    flag: type[int] = int,
) -> Table:
    """Turn predictions as they stand in the journal into columns.

    Args:
        batches: one at least.
        moment: turns milliseconds since 1970 into what the database keeps.
        flag: what it keeps a flag as, `int` or `bool`.

    Returns:
        Those of `USUAL`; `error`, where the model failed for one of these; and those of `SHADOW`, where a
        second one was asked.
    """
    numbers = numbers_of(batches)
    kick, found = numbers[:, :COUNT].T, numbers[:, COUNT : COUNT + 3].T
    lengths = [len(batch) for batch in batches]

    def repeated(values: Iterable[Any]) -> list[Any]:
        return [*chain.from_iterable(map(repeat, values, lengths))]

    columns = [
        [text for batch in batches for text in batch.ids.texts()],
        repeated(moment(batch.millisecond) for batch in batches),
        *(
            (values.astype(flag) if name in features.FLAGS else values).tolist()
            for name, values in zip(features.NAMES, kick, strict=True)
        ),
        *map(_with_nulls, (found[0], np.maximum(found[0], 1 - found[0]), found[1], found[2])),
        repeated(storable(batch.model) for batch in batches),
        repeated(storable(batch.revision) for batch in batches),
        numbers[:, -1].tolist(),
        repeated(batch.cpu_percent for batch in batches),
        repeated(batch.memory_mb for batch in batches),
        repeated(batch.status_code for batch in batches),
    ]
    names = USUAL
    errors = [batch.error for batch in batches]
    if any(error is not None for error in errors):
        names += ("error",)
        columns.append(repeated(error if error is None else storable(error) for error in errors))
    if any(batch.shadow is not None for batch in batches):
        names += SHADOW
        columns += _shadow_columns(batches)
    return Table(names, columns)


def latest(outcomes: Iterable[SetOutcome]) -> list[SetOutcome]:
    """Return the last word on each kick, by id, which is spelt as it is stored; what is no id is left out.

    In the order of their ids, so that two who tell of the same kicks never wait for each other in a ring.
    """
    last = {record_id: each for each in outcomes if (record_id := canonical(each.id)) is not None}
    return [replace(last[record_id], id=record_id) for record_id in sorted(last)]


def unknown_among(outcomes: Iterable[SetOutcome], known: Container[str]) -> set[str]:
    """Return the ids, as they came, of what is not among the ids that are known to the store."""
    return {each.id for each in outcomes if canonical(each.id) not in known}


def _shadow_columns(batches: Sequence[RecordBatch]) -> list[list[Any]]:
    parts = [_shadow_of(batch) for batch in batches]
    return [[*chain.from_iterable(part)] for part in zip(*parts, strict=True)]


def _shadow_of(batch: RecordBatch) -> tuple[list[Any], ...]:
    length, shadow = len(batch), batch.shadow
    if shadow is None:
        return ([None] * length,) * len(SHADOW)
    texts = ([storable(text)] * length for text in (shadow.model, shadow.revision))
    return (*texts, shadow.probability.tolist())


def _with_nulls(values: NDArray[np.float64]) -> list[float | None]:
    """Turn numbers into what a database keeps: NaN, where there is none, into null."""
    unknown = np.isnan(values)
    if not unknown.any():
        result: list[float | None] = values.tolist()
        return result
    return np.where(unknown, None, values).tolist()  # type: ignore[no-any-return, call-overload]


def record_of(row: list[Any]) -> Record:
    """Turn the values of `COLUMNS` into a record; the list is used up by it."""
    low, high = row[INTERVAL : INTERVAL + 2]
    row[INTERVAL : INTERVAL + 2] = [None if low is None else (low, high)]
    return Record(**dict(zip(FIELDS, row, strict=True)))


def storable(text: str) -> str:
    """Replace what a database can't hold, so that one odd error message can't block all that wait behind it.

    These are U+0000 (Postgres) and surrogates without their pair (both).
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


async def in_steps(rows: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """Convert rows some hundreds at a time, with a turn for everybody else in between."""
    converted: list[Any] = []
    for start in range(0, len(rows), STREAM_GROUP):
        if start:
            await asyncio.sleep(0)
        converted += map(convert, rows[start : start + STREAM_GROUP])
    return converted
