"""Which predictions the history shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    def read(cls, since: str | None, until: str | None, outcome: str | None) -> Filter:
        """Make a filter of what a visitor gave; what can't be used counts as nothing."""
        known = outcome if outcome in OUTCOMES else "any"
        return cls(_day(since), _day(until), known or "any")

    @property
    def begin(self) -> datetime | None:
        """The instant from which on records are shown, UTC."""
        return datetime.fromisoformat(self.since).replace(tzinfo=UTC) if self.since else None

    @property
    def end(self) -> datetime | None:
        """The instant before which records are shown, UTC."""
        if not self.until:
            return None
        return datetime.fromisoformat(self.until).replace(tzinfo=UTC) + timedelta(days=1)

    def takes(self, record: Record) -> bool:
        """Say whether a record of these days is shown."""
        known = {"open": None, "scored": True, "missed": False}
        return self.outcome == "any" or record.outcome is known[self.outcome]

    def query(self) -> str:
        """Return it as a query."""
        return urlencode({"since": self.since, "until": self.until, "outcome": self.outcome})


def _day(text: str | None) -> str:
    try:
        return datetime.fromisoformat(text or "").date().isoformat()
    except ValueError:
        return ""
