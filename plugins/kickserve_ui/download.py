"""The kept predictions as CSV, line by line as the store gives them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

from kickserve.schemas import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kickserve.ports import Store
    from kickserve_ui.history_filter import Filter

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
        yield _lines([_cells(each) for each in records if wanted.takes(each)])


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cells(record: Record) -> list[Any]:
    low, high = record.interval or ("", "")
    ends = {"low": low, "high": high}
    return [ends[name] if name in ends else _cell(getattr(record, name)) for name in COLUMNS]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
