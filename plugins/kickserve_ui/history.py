"""Stored predictions as the history shows them: the filter, a page of it, and the download as CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from kickserve.plugins import ALL, Selection, canonical, yield_to_loop
from kickserve.schemas import Record, Source, cells_of, column_names
from kickserve_data.writer import csv_cell
from kickserve_ui.heat_map import colour_of
from kickserve_ui.page_state import MINUTES, link_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from kickserve.plugins import Order, Store
    from kickserve_ui.messages import Messages

FILTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "outcome": ("", "open", "scored", "missed"),
    "source": ("", *get_args(Source)),
    "order": ("", "oldest", "likeliest", "unlikeliest", "furthest"),
}
"""The choices of the history; an empty one is any, or the newest first."""

ROWS: Final = 25
MOST: Final = 10_000
"""Records up to which they are counted."""

_FRESH: Final = 100  # new records up to which they are counted
_PAGE: Final = re.compile(r"\d{1,4}", re.ASCII)  # no deeper: a database reads all that come before
_CSV_ROWS: Final = 200  # that are written before the event loop gets its turn: 4 ms
_FIELDS: Final = Record.__struct_fields__
_OUTCOMES: Final = {"open": None, "scored": True, "missed": False}


@dataclass(frozen=True, slots=True)
class Filter:
    """What a visitor of the history wants to see.

    Attributes:
        since: the first day, as `2026-11-24`, or empty.
        until: the last day, or empty.
        outcome: one of `FILTERS`.
        source: one of `FILTERS`.
        kicker: a label, or empty.
        order: one of `FILTERS`.
        page: from 0.
    """

    since: str = ""
    until: str = ""
    outcome: Any = ""
    source: Any = ""
    kicker: str = ""
    order: Any = ""
    page: int = 0

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filter:
        """Make a filter of a link; unusable values count as empty."""
        chosen = {name: query.get(name, "") for name in FILTERS}
        page = query.get("page", "")
        return cls(
            since=_day(query.get("since", "")),
            until=_day(query.get("until", "")),
            kicker=query.get("kicker", "").strip(),
            page=int(page) if _PAGE.fullmatch(page) else 0,
            **{name: value if value in FILTERS[name] else "" for name, value in chosen.items()},
        )

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

    def selection(self, *, newest: str | None = None, after: str | None = None) -> Selection:
        """Return the records that are wanted, up to an id, or after one."""
        return Selection(
            since=self.begin,
            until=self.end,
            newest=newest,
            after=after,
            kicker=self.kicker or None,
            outcome=self.outcome or None,
            source=self.source or None,
        )

    def takes(self, record: Record) -> bool:
        """Return whether a record of these days is wanted."""
        return (
            (not self.outcome or record.outcome is _OUTCOMES[self.outcome])
            and (not self.source or record.source == self.source)
            and (not self.kicker or record.kicker == self.kicker)
        )


async def page_of(store: Store, wanted: Filter, newest: str, messages: Messages) -> dict[str, Any]:
    """Read a page of the history.

    Args:
        store: of the records.
        wanted: filter, order and page.
        newest: id of the newest record of the list, which holds still; empty for the newest at present.
        messages: of the visitor.

    Returns:
        `records`, `total` (at most `MOST`), whether there are `more` pages, the id of the `newest` record,
        and how many are `fresh`: newer than it.

    Raises:
        StoreError: the store can't be reached.
    """
    latest = await store.search(ALL, 1)
    upto = canonical(newest) or (latest[0].id if latest else None)
    selection, order = wanted.selection(newest=upto), cast("Order", wanted.order or "newest")
    found = await store.search(selection, ROWS + 1, offset=wanted.page * ROWS, order=order)
    total = await store.count(selection, MOST)
    fresh = await store.count(wanted.selection(after=upto), _FRESH) if upto else 0
    return {
        "records": [_row(each, messages) for each in found[:ROWS]],
        "more": len(found) > ROWS,
        "total": total,
        "newest": upto or "",
        "fresh": fresh,
    }


def _row(record: Record, messages: Messages) -> dict[str, Any]:
    return {
        "id": record.id,
        "at": messages.moment(record.created_at),
        "prediction": record.prediction,
        "colour": "" if record.prediction is None else colour_of(record.prediction),
        "distance": record.distance,
        "angle": record.angle,
        "side": "left" if record.is_left_side else "right",
        "minute": record.time_norm * MINUTES,
        "wind": record.wind_speed,
        "kicker": record.kicker,
        "source": record.source,
        "outcome": record.outcome,
        "link": link_of(record),
    }


async def csv_lines(store: Store, wanted: Filter) -> AsyncIterator[str]:
    """Yield records as CSV in pieces, oldest first, in memory that does not grow.

    The columns are those of `kickserve export`.
    """
    yield csv_text([column_names(Record)])
    async for records in store.stream(since=wanted.begin, until=wanted.end, kicker=wanted.kicker or None):
        taken = [each for each in records if wanted.takes(each)]
        for start in range(0, len(taken), _CSV_ROWS):
            some = taken[start : start + _CSV_ROWS]
            yield csv_text([[csv_cell(cell) for cell in cells_of(each)] for each in some])
            await yield_to_loop()


def _day(given: str) -> str:
    try:
        return datetime.fromisoformat(given).date().isoformat()
    except ValueError:
        return ""


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
