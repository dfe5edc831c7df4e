"""Stored predictions as the history shows them: filtered, as rows of a table, as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from msgspec.structs import astuple

from kickserve.plugins import yield_to_loop
from kickserve.schemas import Record
from kickserve_ui.heat_map import colour_of
from kickserve_ui.page_state import MINUTES, state_of
from kickserve_ui.rendering import render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from kickserve.plugins import Store
    from kickserve_ui.messages import Messages

OUTCOMES: Final = {"any": None, "open": None, "scored": True, "missed": False}
MARKS: Final[Mapping[str, bool]] = {"scored": True, "missed": False}
DELETE: Final = "delete"
# The table is one piece of HTML: an element of NiceGUI for each cell and button takes the event loop 100 ms.
# A click on a button in it sends the button's mark and the id of its row.
ON_CLICK: Final = """(event) => {
  const button = event.target.closest("button[data-mark]");
  if (button) emit(button.dataset.mark, button.closest("tr").dataset.id);
}"""
_HEADS: Final = ("when", "chance", "distance", "angle", "side", "minute", "wind", "outcome", "actions")
_CSV_ROWS: Final = 200  # that are written before the event loop gets its turn: 4 ms
_INTERVAL: Final = Record.__struct_fields__.index("interval")
# The columns of `kickserve export`: the interval makes two.
_COLUMNS: Final = (
    *Record.__struct_fields__[:_INTERVAL],
    "low",
    "high",
    *Record.__struct_fields__[_INTERVAL + 1 :],
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Days and an outcome.

    Attributes:
        since: the first day, as `2026-11-24`, or empty.
        until: the last day, or empty.
        outcome: one of `OUTCOMES`.
    """

    since: str = ""
    until: str = ""
    outcome: str = "any"

    @classmethod
    def read(cls, since: object, until: object, outcome: object) -> Filter:
        """Make a filter of a visitor's input; unusable input counts as empty."""
        return cls(_day(since), _day(until), next((each for each in OUTCOMES if each == outcome), "any"))

    @property
    def begin(self) -> datetime | None:
        """The instant of the first record, UTC."""
        return datetime.fromisoformat(self.since).replace(tzinfo=UTC) if self.since else None

    @property
    def end(self) -> datetime | None:
        """The instant after the last record, UTC."""
        if self.until in {"", date.max.isoformat()}:  # there is no day after the last
            return None
        return datetime.fromisoformat(self.until).replace(tzinfo=UTC) + timedelta(days=1)

    def takes(self, record: Record) -> bool:
        """Say whether a record of these days is shown."""
        return self.outcome == "any" or record.outcome is OUTCOMES[self.outcome]

    def query(self) -> str:
        """Return the filter as the query of a link."""
        return urlencode({"since": self.since, "until": self.until, "outcome": self.outcome})


def _day(given: object) -> str:
    try:
        return datetime.fromisoformat(str(given)).date().isoformat()
    except ValueError:
        return ""


def table(
    messages: Messages, records: Sequence[Record], *, may_mark: bool, may_delete: bool, searched: int = 0
) -> str:
    """Return records as an HTML table.

    Args:
        messages: of the visitor.
        records: a row each.
        may_mark: whether the visitor may set outcomes.
        may_delete: whether the visitor may delete predictions.
        searched: number of records that were read for the table, where older ones may match too; else 0.
    """
    return render(
        "history",
        messages,
        heads=_HEADS,
        records=records,
        marks=MARKS,
        minutes=MINUTES,
        colour_of=colour_of,
        state_of=state_of,
        may_mark=may_mark,
        may_delete=may_delete,
        searched=searched,
    )


async def csv_lines(store: Store, wanted: Filter) -> AsyncIterator[str]:
    """Yield records as CSV in pieces, oldest first, in memory that does not grow."""
    yield _csv([_COLUMNS])
    async for records in store.stream(since=wanted.begin, until=wanted.end):
        taken = [each for each in records if wanted.takes(each)]
        for start in range(0, len(taken), _CSV_ROWS):
            yield _csv([_csv_cells(each) for each in taken[start : start + _CSV_ROWS]])
            await yield_to_loop()


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _csv_cells(record: Record) -> list[Any]:
    cells = [_csv_cell(each) for each in astuple(record)]
    cells[_INTERVAL : _INTERVAL + 1] = record.interval or ("", "")
    return cells


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.isoformat() if isinstance(value, datetime) else value
