"""The kept predictions as CSV, line by line as the store gives them."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import astuple

from kickserve.batching import yield_to_loop
from kickserve.schemas import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kickserve.store import Store
    from kickserve_ui.history_filter import Filter

_TOGETHER: Final = 200  # records that are written before others get their turn on the event loop: 4 ms
_INTERVAL: Final = Record.__struct_fields__.index("interval")
# As `kickserve export` names them: the interval makes two columns.
COLUMNS: Final = tuple(
    column
    for name in Record.__struct_fields__
    for column in (("low", "high") if name == "interval" else (name,))
)


async def csv_lines(store: Store, wanted: Filter) -> AsyncIterator[str]:
    """Yield the file in pieces, oldest record first, in memory that does not grow.

    Args:
        store: where the records are.
        wanted: which of them.
    """
    yield _lines([COLUMNS])
    async for records in store.stream(since=wanted.begin, until=wanted.end):
        taken = [each for each in records if wanted.takes(each)]
        for start in range(0, len(taken), _TOGETHER):
            yield _lines([_cells(each) for each in taken[start : start + _TOGETHER]])
            await yield_to_loop()


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cells(record: Record) -> list[Any]:
    cells = [_cell(each) for each in astuple(record)]
    cells[_INTERVAL : _INTERVAL + 1] = record.interval or ("", "")
    return cells


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.isoformat() if isinstance(value, datetime) else value
