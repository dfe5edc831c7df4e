"""Which predictions the history shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from kickserve.schemas import Record

OUTCOMES: Final = ("any", "open", "scored", "missed")


@dataclass(frozen=True, slots=True)
class Filter:
    """Days and an outcome.

    Attributes:
        since: the first day, as `2026-11-24`, or nothing.
        until: the last day, or nothing.
        outcome: one of `OUTCOMES`.
    """

    since: str = ""
    until: str = ""
    outcome: str = "any"

    @classmethod
    def read(cls, since: object, until: object, outcome: object) -> Filter:
        """Make a filter of what a visitor gave; what can't be used counts as nothing."""
        return cls(_day(since), _day(until), next((each for each in OUTCOMES if each == outcome), "any"))

    @property
    def begin(self) -> datetime | None:
        """The instant from which on records are shown, UTC."""
        return datetime.fromisoformat(self.since).replace(tzinfo=UTC) if self.since else None

    @property
    def end(self) -> datetime | None:
        """The instant before which records are shown, UTC."""
        if self.until in {"", date.max.isoformat()}:  # there is no day after the last
            return None
        return datetime.fromisoformat(self.until).replace(tzinfo=UTC) + timedelta(days=1)

    def takes(self, record: Record) -> bool:
        """Say whether a record of these days is shown."""
        known = {"open": None, "scored": True, "missed": False}
        return self.outcome == "any" or record.outcome is known[self.outcome]

    def query(self) -> str:
        """Return it as a query."""
        return urlencode({"since": self.since, "until": self.until, "outcome": self.outcome})


def _day(given: object) -> str:
    try:
        return datetime.fromisoformat(str(given)).date().isoformat()
    except ValueError:
        return ""
