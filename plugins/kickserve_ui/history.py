"""Stored predictions as the history shows them: the filter, and the download as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from kickserve.plugins import yield_to_loop
from kickserve.schemas import Record, cells_of, column_names
from kickserve_data.writer import csv_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kickserve.plugins import Store

OUTCOMES: Final = {"any": None, "open": None, "scored": True, "missed": False}
_CSV_ROWS: Final = 200  # that are written before the event loop gets its turn: 4 ms


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
        """Return whether a record of these days is shown."""
        return self.outcome == "any" or record.outcome is OUTCOMES[self.outcome]

    def query(self) -> str:
        """Return the filter as the query of a link."""
        return urlencode({"since": self.since, "until": self.until, "outcome": self.outcome})


async def csv_lines(store: Store, wanted: Filter) -> AsyncIterator[str]:
    """Yield records as CSV in pieces, oldest first, in memory that does not grow.

    The columns are those of `kickserve export`.
    """
    yield _csv([column_names(Record)])
    async for records in store.stream(since=wanted.begin, until=wanted.end):
        taken = [each for each in records if wanted.takes(each)]
        for start in range(0, len(taken), _CSV_ROWS):
            some = taken[start : start + _CSV_ROWS]
            yield _csv([[csv_cell(cell) for cell in cells_of(each)] for each in some])
            await yield_to_loop()


def _day(given: object) -> str:
    try:
        return datetime.fromisoformat(str(given)).date().isoformat()
    except ValueError:
        return ""


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
